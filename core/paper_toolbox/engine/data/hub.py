"""Data sets of the ``datasets`` library: folders, files, the hub's cache; no loading script and no pickle is run."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..setup.packages import flag, package
from .hub_columns import columns_of
from .raw import Raw

EXTRA = "'paper-toolbox-core[hf]'"
FORMATS = ("csv", "json", "parquet", "arrow", "imagefolder", "text", "cache")  # what holds data and never code
FILES = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}


def read_hub(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """``hf:FOLDER`` of ``save_to_disk`` or of data files, ``hf:FILE``, or ``hf:ORG/NAME`` from the hub's cache.

    ``split`` names the part to read, ``download=true`` asks the hub. Images and classes, one text column by a tokenizer
    of a folder, or a table.
    """
    datasets = package("datasets", source, DataError, EXTRA)
    download = flag(options, "download", False, DataError)
    try:
        with _at_home(datasets, download):
            opened = _opened(datasets, source, path, options, download)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, ConnectionError) and not download:
            said = f"{path} is no folder or file here, nor in the hub's cache (download=true asks the hub)"
        raise DataError(f"{source} cannot be opened: {said}") from error
    return columns_of(source, opened, options, known)


def _opened(datasets: Any, source: str, path: Path, options: Mapping[str, str], download: bool) -> Any:
    """One split, as a ``datasets.Dataset``."""
    if path.exists() and (asked := [name for name in ("revision", "download") if name in options]):
        raise DataError(f"{source}: {path} is here; {asked[0]}= is for data sets of the hub")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.Dataset):
            saved = {str(saved.split or "train"): saved}
        return saved[_split(source, list(saved), options)]
    builder = _builder(datasets, path, options)
    kind = type(builder).__module__.split(".")[-1]
    if kind not in FORMATS:
        raise DataError(f"{source}: it is made of {kind}, which is not read here; {', '.join(FORMATS[:-1])} are")
    revision = options.get("revision")
    if revision and not download and not str(builder.hash).startswith(revision):
        raise DataError(f"{source}: the hub's cache has the revision {builder.hash} of it; download=true asks the hub")
    builder.download_and_prepare()
    return builder.as_dataset(split=_split(source, list(builder.info.splits), options))


def _builder(datasets: Any, path: Path, options: Mapping[str, str]) -> Any:
    if not path.is_file():
        return datasets.load_dataset_builder(str(path), options.get("config"), revision=options.get("revision"))
    if path.suffix not in FILES:
        raise ValueError(f"a file must be one of {' '.join(FILES)}")
    return datasets.load_dataset_builder(FILES[path.suffix], data_files=str(path))


def _split(source: str, there: list[str], options: Mapping[str, str]) -> str:
    """The split asked for, else ``train``, else the only one."""
    wanted = options.get("split") or ("train" if "train" in there else there[0] if len(there) == 1 else "")
    if wanted in there:
        return wanted
    near = difflib.get_close_matches(wanted, there, n=1)
    hint = f"did you mean {near[0]}?" if near else f"name one with split=: it has {', '.join(there)}"
    raise DataError(f"{source}: " + (f"no split {wanted!r}; {hint}" if wanted else hint))


@contextmanager
def _at_home(datasets: Any, download: bool) -> Iterator[None]:
    """Without ``download`` the library asks no server, not even to count who loads what; it draws nothing."""
    offline, level = datasets.config.HF_HUB_OFFLINE, datasets.logging.get_verbosity()
    drawn = datasets.is_progress_bar_enabled()
    if not download:
        datasets.config.HF_HUB_OFFLINE = True
        datasets.logging.set_verbosity_error()
        datasets.disable_progress_bar()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        datasets.logging.set_verbosity(level)
        if drawn:
            datasets.enable_progress_bar()
