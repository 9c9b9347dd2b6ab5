"""What a run was made with: its methods, with version and code, and the machine; and what of it is another by now."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from . import catalog
from .catalog import Card
from .recipe import Choice

Row = dict[str, str]


def provenance(choices: Iterable[Choice]) -> list[Row]:
    """Name, kind, package, version, paper and code of each method of a run, those that others wrap included.

    Observers are left out: a run is what it is without them.
    """
    methods = (choice for choice in choices if choice.kind != "observer")
    every = dict.fromkeys((c.kind, c.name) for choice in methods for c in (choice, *_inside(choice)))
    return [_row(catalog.find(name, kind)) for kind, name in every]


def again(rows: Iterable[Row]) -> list[Row]:
    """The rows that ``provenance`` gave once, as they are now; a method that is not installed is an error."""
    return [_row(catalog.find(row["name"], row["kind"])) for row in rows]


def changes(before: Iterable[Row], now: Iterable[Row]) -> list[str]:
    """The packages that have another version, or the same one and other code; older records tell no code."""
    here, found = {(row["kind"], row["name"]): row for row in now}, []
    for was in before:
        now_is = here.get((was["kind"], was["name"]), was)
        if now_is["version"] != was["version"]:
            found.append(f"{was['package']} was {was['version']} and is {now_is['version']}")
        elif (code := was.get("code_sha256")) and now_is.get("code_sha256", code) != code:
            found.append(f"{was['package']} {was['version']} was changed since (its code is another)")
    return list(dict.fromkeys(found))


def environment() -> dict[str, str]:
    """Versions and machine, for the record."""
    own, runtimes = ("paper-toolbox-core", "torch", "numpy"), ("onnx", "onnxruntime-gpu", "onnxruntime")
    packages = (*own, *runtimes, "accelerate", "transformers")  # the last decides what an hf: model computes
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def code_of(module: str) -> str:
    """SHA-256 over the files of the package, or the file, that holds ``module``; empty where there is none.

    An installed copy and an editable one of the same code have the same. Of the toolbox itself it is the part named.
    """
    digest = hashlib.sha256()
    files = sorted(_files(module))
    for name, file in files:
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else ""


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """(name inside the package, file)."""
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for name in names if parts[0] != __package__ else names[-1:]:
        spec = find_spec(name)
        if spec is None or not spec.has_location or spec.origin is None:
            continue  # a namespace that several packages share: the package is further inside
        for folder in map(Path, spec.submodule_search_locations or ()):
            inside = ((file.relative_to(folder), file) for file in folder.rglob("*") if file.is_file())
            yield from ((path.as_posix(), file) for path, file in inside if _is_code(path))
        if not spec.submodule_search_locations:
            yield Path(spec.origin).name, Path(spec.origin)
        return


def _is_code(path: Path) -> bool:
    return path.suffix != ".pyc" and not any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _row(card: Card) -> Row:
    about = {"name": card.name, "kind": card.kind, "package": card.package, "version": card.version}
    return about | {"paper": card.urls.get("Paper", ""), "code_sha256": code_of(card.entry.module)}


def _inside(choice: Choice) -> Iterator[Choice]:
    """The optimizers that a field of ``choice`` names, and those inside them."""
    for field in ("base", "rest") if choice.kind == "optimizer" else ():
        name, _, query = str(choice.fields.get(field, "")).partition("?")
        if name:
            fields: dict[str, Any] = dict(parse_qsl(query))
            inner = Choice("optimizer", name, fields)
            yield from (inner, *_inside(inner))
