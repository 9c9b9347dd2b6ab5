"""The built-in observers, two files that any program reads, offered through the same hook as a guest's."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ParamError
from .files import replacing
from .hookspecs import hookimpl
from .kinds import Observer, Record, Run
from .method import param

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Jsonl(Observer):
    """One JSON object a line, ``{"step": 7, "epoch": 1, "batch_loss": 0.5, …}``; what is not finite is null."""

    path: str | None = param(None, "the file; none: steps.jsonl in the run's folder")

    @contextmanager
    def watch(self, run: Run) -> Iterator[Record]:
        path = _place(self.path, run, "steps.jsonl")
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= run.step]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", buffering=1) as file:  # line by line: a kill loses none
            file.truncate(len("".join(kept)))  # what json writes is ASCII
            yield lambda step, figures: _put(file.write, {"step": step, **figures})


@dataclass(frozen=True, kw_only=True)
class Csv(Observer):
    """One row a step, one column a figure; a figure that appears later gets a column, empty in the rows before."""

    path: str | None = param(None, "the file; none: steps.csv in the run's folder")

    @contextmanager
    def watch(self, run: Run) -> Iterator[Record]:
        path = _place(self.path, run, "steps.csv")
        rows = (row for row in csv.DictReader(_whole_lines(path)) if int(row["step"]) <= run.step)
        with Table(path, rows) as table:
            yield lambda step, figures: table.add({"step": step, **figures})


class Table:
    """A CSV file that grows by rows, and now and then by columns."""

    def __init__(self, path: Path, rows: Iterable[Row]) -> None:
        self.path = path
        self.columns: list[str] = ["step"]
        self._anew(list(rows))

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, row: Row) -> None:
        """Append ``row``; each row is in the file when this returns."""
        if row.keys() - set(self.columns):
            self.file.close()
            self._anew([*csv.DictReader(_whole_lines(self.path)), row])
        else:
            self.writer.writerow(row)
        self.file.flush()

    def _anew(self, rows: list[Row]) -> None:
        """Write the whole file, with every column that ``rows`` have; then open it to go on."""
        self.columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        with replacing(self.path) as new, new.open("w", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.file = self.path.open("a", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.columns, lineterminator="\n")


def _place(path: str | None, run: Run, name: str) -> Path:
    """Where the rows go; what another run wrote there stays."""
    place = Path(path) if path else run.folder / name
    if place.exists() and not run.resumed:
        raise ParamError(f"{place} exists already: name another file, or remove it")
    return place


def _whole_lines(path: Path) -> list[str]:
    """The lines of ``path`` but one that a crash cut off; none where there is no file yet."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]


def _put(write: Callable[[str], object], row: Mapping[str, Any]) -> None:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    write(json.dumps(finite) + "\n")


@hookimpl
def observer() -> dict[str, type[Observer]]:
    return {"jsonl": Jsonl, "csv": Csv}
