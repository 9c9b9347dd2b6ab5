"""Readers of data sources: which one a source names, the data sets at hand offline, text, and modules."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch

from ..errors import DataError, ToolboxError
from ..host import Host
from .arrays import read_arrays, read_npz
from .images import read_folder
from .raw import Raw, labelled
from .tables import read_csv
from .text import read_text

__all__ = ["Raw", "Source", "parse", "read"]

SUFFIXES = {".csv": "csv", ".npz": "npz", ".txt": "text"}


@dataclass(frozen=True)
class Source:
    """``scheme:rest?options``; a built-in name is a scheme without rest."""

    text: str
    scheme: str
    rest: str
    options: dict[str, str]


def parse(source: str) -> Source:
    """Take a source apart; a bare path gets the scheme of its suffix, or ``folder``."""
    body, _, query = source.partition("?")
    scheme, colon, rest = body.partition(":")
    path = Path(body)
    if not colon and scheme not in BUILT_IN and (path.suffix in SUFFIXES or path.is_dir()):
        scheme, rest = SUFFIXES.get(path.suffix, "folder"), body
    return Source(source, scheme, rest, dict(parse_qsl(query, keep_blank_values=True)))


def read(source: str, seed: int, validation: float, known: Mapping[str, Any], host: Host) -> Any:
    """The ``Raw`` that ``source`` names; a guest's opener or a ``module:function`` may give a finished ``Data``."""
    asked = parse(source)
    if asked.scheme in BUILT_IN and not asked.rest:
        _check_options(asked, ())
        return _bundled(asked.scheme, known)
    if asked.scheme in READERS and asked.rest:
        reader, options = READERS[asked.scheme]
        _check_options(asked, options)
        return reader(source, _existing(asked), asked.options, known)
    host.load_all("opener")
    opened = host.manager.hook.open_data(source=source, seed=seed, validation=validation)
    if opened is not None:
        return opened
    if (function := imported(asked.scheme, asked.rest, source, DataError)) is None:
        raise DataError(_unknown(asked))
    made = call(function, source, DataError, seed, validation)
    return read_arrays(source, *made, known=known) if isinstance(made, tuple | list) and len(made) == 2 else made


def call(function: Callable[..., Any], source: str, error: type[ToolboxError], *arguments: Any) -> Any:
    """``function(*arguments)`` when it takes so many by position, else ``function()``; what it raises names it."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        arguments = ()
    try:
        return function(*arguments)
    except ToolboxError:
        raise
    except Exception as raised:  # the user's own code may raise anything; it is named and chained
        raise error(f"{source} raised {type(raised).__name__}: {raised}") from raised


def imported(module: str, name: str, source: str, error: type[ToolboxError]) -> Callable[..., Any] | None:
    """The function that ``module:name`` names, also from the working directory; None when there is no such module."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", module) or not name.isidentifier():
        return None
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:
        return None
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise error(f"{source}: module {module} has no function {name!r}")
    return function  # type: ignore[no-any-return]  # checked to be callable


def _existing(asked: Source) -> Path:
    path = Path(asked.rest).expanduser()
    if not path.exists():
        raise DataError(f"{asked.text}: {path} does not exist")
    if asked.scheme == "folder" and not path.is_dir():
        raise DataError(f"{asked.text}: {path} is a file; folder: wants a folder with one sub-folder per class")
    if asked.scheme != "folder" and (path.is_dir() or not path.stat().st_size):
        what = "a folder" if path.is_dir() else "empty"
        raise DataError(f"{asked.text}: {path} is {what}; {asked.scheme}: wants a file with data")
    return path


def _check_options(asked: Source, allowed: tuple[str, ...]) -> None:
    for option in asked.options:
        if option not in allowed:
            near = difflib.get_close_matches(option, allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DataError(
                f"{asked.text}: no option {option!r}{hint} ({asked.scheme} has {', '.join(allowed) or 'no options'})"
            )


def _unknown(asked: Source) -> str:
    near = difflib.get_close_matches(asked.scheme, [*BUILT_IN, *READERS], n=1)
    meant = f"; did you mean {near[0]}{f':{asked.rest}' if near[0] in READERS else ''}?" if near else ""
    known = ", ".join([*BUILT_IN, *(f"{scheme}:PATH" for scheme in READERS), "module:function"])
    return f"unknown data source {asked.text!r}{meant} (known: {known})"


def _bundled(name: str, known: Mapping[str, Any]) -> Raw:
    """A data set that scikit-learn carries, as float64."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    x = torch.from_numpy(np.ascontiguousarray(bunch.data, dtype=np.float64))
    if name == "diabetes":
        targets = torch.from_numpy(bunch.target.astype(np.float64))[:, None]
        return Raw(kind="regression", inputs={"row": x}, targets=targets, columns=list(bunch.feature_names))
    names = [str(n) for n in bunch.target_names]
    targets, classes = labelled(np.array(names)[bunch.target], known.get("classes") or names, name)
    if name == "digits":
        return Raw(kind="classification", inputs={"image": x.view(-1, 1, 8, 8)}, targets=targets, classes=classes)
    return Raw(
        kind="classification", inputs={"row": x}, targets=targets, classes=classes, columns=list(bunch.feature_names)
    )


BUILT_IN = ("digits", "breast_cancer", "wine", "diabetes")
READERS: dict[str, tuple[Callable[[str, Path, Mapping[str, str], Mapping[str, Any]], Raw], tuple[str, ...]]] = {
    "folder": (read_folder, ("size", "channels")),
    "csv": (read_csv, ("target", "task", "drop")),
    "npz": (read_npz, ("target", "task")),
    "text": (read_text, ("length",)),
}
