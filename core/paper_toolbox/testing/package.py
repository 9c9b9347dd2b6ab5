"""A plugin's folder seen as an installed package, without building it."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from ..errors import PluginError


def project(folder: Path) -> dict[str, Any]:
    """The table ``[project]`` of the folder's pyproject."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise PluginError(f"{folder} is not a plugin folder: it has no pyproject.toml")
    try:
        table = tomllib.loads(file.read_text("utf-8"))["project"]
        missing = {"name", "version"} - table.keys()
    except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError) as error:
        raise PluginError(f"{file} cannot be read: {error}") from error
    if missing:
        raise PluginError(f"{file} does not state {' and '.join(sorted(missing))}: install it, then check it by name")
    return dict(table)


def stage(folder: Path, target: Path) -> Distribution:
    """Write the metadata that building ``folder`` would give, as a dist-info folder in ``target``."""
    table = project(folder)
    info = target / f"{table['name'].replace('-', '_')}-{table['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(_metadata(table, folder), "utf-8")
    lines: list[str] = []
    for group, entries in table.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    return Distribution.at(info)


def roots(folder: Path) -> list[str]:
    """Where the modules of ``folder`` are imported from."""
    return [str(path.resolve()) for path in (folder / "src", folder) if path.is_dir()]


@contextmanager
def staged(folder: Path) -> Iterator[Distribution]:
    """``folder`` importable, and the distribution it would be, while the context is open.

    Its modules are imported anew, whatever else of the same name is loaded; that comes back afterwards.
    """
    path = list(sys.path)
    with TemporaryDirectory() as target:
        distribution = stage(folder, Path(target))
        own = {entry.module.partition(".")[0] for entry in distribution.entry_points} - {"paper_toolbox"}
        loaded = _forget(own)
        sys.path[:0] = roots(folder)
        importlib.invalidate_caches()
        try:
            yield distribution
        finally:
            sys.path[:] = path
            _forget(own)
            sys.modules.update(loaded)


def _forget(packages: Collection[str]) -> dict[str, ModuleType]:
    """Take the modules of ``packages`` out of those that are loaded."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in packages}


def _metadata(table: dict[str, Any], folder: Path) -> str:
    license_ = table.get("license", "")
    single = {
        "Metadata-Version": "2.4",
        "Name": table["name"],
        "Version": table["version"],
        "Summary": table.get("description", ""),
        "Keywords": ",".join(table.get("keywords", ())),
        "License-Expression": license_ if isinstance(license_, str) else "",
        "Requires-Python": table.get("requires-python", ""),
    }
    lines = [f"{header}: {value}" for header, value in single.items() if value]
    lines += [f"Project-URL: {label}, {url}" for label, url in table.get("urls", {}).items()]
    lines += [f"Requires-Dist: {needed}" for needed in table.get("dependencies", ())]
    readme = table.get("readme", "")
    card = folder / (readme if isinstance(readme, str) else readme.get("file", ""))
    return "\n".join(lines) + "\n\n" + (card.read_text("utf-8") if card.is_file() else "")
