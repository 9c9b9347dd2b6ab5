"""Data sources: what a source names, the reader of each scheme, and functions of modules."""

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
from typing import Any, Literal
from urllib.parse import parse_qsl

from ...errors import DataError, ToolboxError
from ...host import Host
from . import bundled
from .arrays import read_arrays, read_npz
from .hub import read_hub
from .images import read_folder
from .parquet import read_parquet
from .raw import Raw
from .tables import read_csv
from .text import read_text
from .torchvision_data import read_torchvision

__all__ = ["Raw", "Source", "parse", "read"]

SUFFIXES = {".csv": "csv", ".npz": "npz", ".parquet": "parquet", ".txt": "text"}


@dataclass(frozen=True)
class Source:
    """``scheme:rest?options``; a built-in name is a scheme without rest."""

    text: str
    scheme: str
    rest: str
    options: dict[str, str]


@dataclass(frozen=True)
class Reader:
    """How the sources of one scheme are read; what they name is a ``file``, a ``folder``, either, or no path at all."""

    read: Callable[[str, Path, Mapping[str, str], Mapping[str, Any]], Raw]
    options: tuple[str, ...]
    takes: tuple[Literal["file", "folder"], ...] = ("file",)


def parse(source: str) -> Source:
    """Take a source apart; a bare path gets the scheme of its suffix, or ``folder``."""
    body, _, query = source.partition("?")
    scheme, colon, rest = body.partition(":")
    path = Path(body)
    if not colon and scheme not in bundled.NAMES and (path.suffix in SUFFIXES or path.is_dir()):
        scheme, rest = SUFFIXES.get(path.suffix, "folder"), body
    return Source(source, scheme, rest, dict(parse_qsl(query, keep_blank_values=True)))


def read(source: str, seed: int, validation: float, known: Mapping[str, Any], host: Host) -> Any:
    """The ``Raw`` that ``source`` names; a guest's opener or a ``module:function`` may give a finished ``Data``."""
    asked = parse(source)
    if asked.scheme in bundled.NAMES and not asked.rest:
        _check_options(asked, ())
        return bundled.read_bundled(asked.scheme, known)
    if asked.scheme in READERS and asked.rest:
        reader = READERS[asked.scheme]
        _check_options(asked, reader.options)
        return reader.read(source, _existing(asked, reader), asked.options, known)
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


def _existing(asked: Source, reader: Reader) -> Path:
    path = Path(asked.rest).expanduser()
    if not reader.takes:
        return path
    if not path.exists():
        raise DataError(f"{asked.text}: {path} does not exist")
    if path.is_dir() and "folder" not in reader.takes:
        raise DataError(f"{asked.text}: {path} is a folder; {asked.scheme}: wants a file with data")
    if path.is_file() and "file" not in reader.takes:
        raise DataError(f"{asked.text}: {path} is a file; {asked.scheme}: wants a folder with one sub-folder per class")
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{asked.text}: {path} is empty; {asked.scheme}: wants a file with data")
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
    near = difflib.get_close_matches(asked.scheme, [*bundled.NAMES, *READERS], n=1)
    meant = f"; did you mean {near[0]}{f':{asked.rest}' if near[0] in READERS else ''}?" if near else ""
    schemes = (f"{scheme}:{'PATH' if reader.takes else 'NAME'}" for scheme, reader in READERS.items())
    known = ", ".join([*bundled.NAMES, *schemes, "module:function"])
    return f"unknown data source {asked.text!r}{meant} (known: {known})"


TABLE = ("target", "task", "drop")
PIXELS = ("size", "channels")
READERS = {
    "folder": Reader(read_folder, PIXELS, ("folder",)),
    "csv": Reader(read_csv, TABLE),
    "parquet": Reader(read_parquet, TABLE, ("file", "folder")),
    "npz": Reader(read_npz, ("target", "task")),
    "text": Reader(read_text, ("length",)),
    "hf": Reader(
        read_hub,
        (*TABLE, *PIXELS, "image", "text", "tokenizer", "length", "split", "config", "revision", "download"),
        (),
    ),
    "torchvision": Reader(read_torchvision, ("root", "split", "download", *PIXELS), ()),
}
