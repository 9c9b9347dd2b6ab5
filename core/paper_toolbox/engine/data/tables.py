"""Tables: columns that become numbers, from CSV files and from whatever else gives a data frame."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import DataError
from .raw import Raw, kind_of, labelled

LEVELS = 32  # a text column with more different values is not one-hot encoded
CLASSES = 20  # a whole-number target with more different values is a quantity, not a class


def read_csv(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """A CSV file with a header."""
    import pandas

    try:
        table = pandas.read_csv(path)
    except (ValueError, OSError, pandas.errors.ParserError) as error:
        raise DataError(f"{source}: {path} cannot be read as CSV: {error}") from None
    return from_frame(source, table, options, known, first_row=2)  # the header is line 1


def from_frame(
    source: str,
    table: Any,
    options: Mapping[str, str],
    known: Mapping[str, Any],
    *,
    first_row: int = 0,
    classes: Sequence[str] | None = None,
) -> Raw:
    """Numeric columns as they are, text columns one-hot up to ``LEVELS`` values, the target by ``?target=COLUMN``.

    A text target means classes, as do at most ``CLASSES`` whole numbers; other numbers mean regression. ``classes``
    fixes their order.
    """
    table = table.rename(columns=str)
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise DataError(f"{source}: two columns are called {twice[0]!r}")
    target = options.get("target") or known.get("target")
    if target is None:
        raise DataError(f"{source}: say which column to predict: target=COLUMN (columns: {_some(table.columns)})")
    dropped = [name for name in options.get("drop", "").split(",") if name]
    for name in (target, *dropped):
        _column(source, table, name)
    if not len(table):
        raise DataError(f"{source}: it has a header but no rows")
    values = table[target]
    table = table.drop(columns=[target, *dropped])
    spec = known.get("columns") or {name: _levels(source, table[name]) for name in table.columns}
    x, names = _encode(source, table, spec)
    empty: dict[str, Sequence[int]] = {n: _places(table[n]) for n in spec if table[n].isna().any()}
    inputs: dict[str, Any] = {"row": x}
    raw = Raw(kind="regression", inputs=inputs, targets=torch.empty(0), columns=names, empty=empty, first_row=first_row)
    raw.record = {"columns": spec}
    set_targets(raw, source, values, options, known, classes)
    return raw


def set_targets(
    raw: Raw,
    source: str,
    values: Any,
    options: Mapping[str, str],
    known: Mapping[str, Any],
    classes: Sequence[str] | None = None,
) -> None:
    """The column ``values`` (N,) as the targets of ``raw``, whose kind follows from it; an empty value is noted."""
    raw.kind = kind_of(
        source, options.get("task") or known.get("kind") or ("classification" if classes else _kind(values))
    )
    raw.target = str(values.name)
    raw.record |= {"kind": raw.kind, "target": raw.target}
    there = values.notna().to_numpy(copy=True)
    if not there.all():
        raw.empty[raw.target] = _places(values)
    if raw.kind == "classification":
        found, raw.classes = labelled(_labels(values[there]), known.get("classes") or classes, source)
        raw.targets = torch.full((len(values),), -1)
        raw.targets[torch.from_numpy(there)] = found
        raw.outputs = len(raw.classes)
    elif raw.kind != "regression":
        raise DataError(f"{source}: task={raw.kind}: must be classification or regression")
    elif _is_text(values):
        raise DataError(f"{source}: target column {values.name!r} holds text; regression needs numbers")
    else:
        raw.targets = torch.tensor(values.to_numpy(np.float64, na_value=np.nan))[:, None]


def _encode(source: str, table: Any, spec: Mapping[str, list[str] | None]) -> tuple[torch.Tensor, list[str]]:
    """Rows (N, D) float64 and the names of the D columns; a text value not in ``spec`` becomes all zeros."""
    columns: list[np.ndarray[Any, Any]] = []
    names: list[str] = []
    for name, levels in spec.items():
        column = _column(source, table, name)
        if levels is not None:
            columns += [(column.astype(str) == level).to_numpy(np.float64) for level in levels]
            names += [f"{name}={level}" for level in levels]
        elif _is_text(column):
            raise DataError(f"{source}: column {name!r} holds text where numbers were trained on")
        else:
            columns.append(column.to_numpy(np.float64, na_value=np.nan))
            names.append(name)
    if not columns:
        raise DataError(f"{source}: no column is left beside the target")
    return torch.from_numpy(np.stack(columns, 1)), names


def _levels(source: str, column: Any) -> list[str] | None:
    """The values of a text column, or None for numbers."""
    if not _is_text(column):
        return None
    levels = sorted(column.dropna().astype(str).unique())
    if len(levels) > LEVELS:
        raise DataError(
            f"{source}: text column {column.name!r} has {len(levels)} different values, one-hot goes up to {LEVELS}: "
            f"leave it out with drop={column.name}"
        )
    return levels


def _column(source: str, table: Any, name: str) -> Any:
    if name not in table.columns:
        near = difflib.get_close_matches(name, list(table.columns), n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {_some(table.columns)}"
        raise DataError(f"{source}: no column {name!r}; {hint}")
    return table[name]


def _kind(values: Any) -> str:
    whole = not _is_text(values) and bool((values.dropna() % 1 == 0).all()) and values.nunique() <= CLASSES
    return "classification" if _is_text(values) or whole else "regression"


def _labels(values: Any) -> np.ndarray[Any, Any]:
    return values.astype(str).to_numpy(dtype=str) if _is_text(values) or values.dtype == bool else values.to_numpy()  # type: ignore[no-any-return]  # pandas has no types


def _is_text(column: Any) -> bool:
    return column.dtype.kind not in "fiub"


def _places(column: Any) -> list[int]:
    """The rows, from 0, that hold nothing."""
    return [int(i) for i in np.flatnonzero(column.isna().to_numpy())]


def _some(names: Any) -> str:
    return ", ".join(map(str, list(names)[:12])) + (", …" if len(names) > 12 else "")
