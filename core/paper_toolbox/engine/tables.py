"""Tables: a CSV file whose columns become numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from .raw import Raw, kind_of, labelled

LEVELS = 32  # a text column with more different values is not one-hot encoded
CLASSES = 20  # a whole-number target with more different values is a quantity, not a class


def read_csv(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """Numeric columns as they are, text columns one-hot up to ``LEVELS`` values, the target by ``?target=COLUMN``.

    A text target means classes, as do at most ``CLASSES`` whole numbers; other numbers mean regression.
    """
    import pandas

    try:
        table = pandas.read_csv(path)
    except (ValueError, OSError, pandas.errors.ParserError) as error:
        raise DataError(f"{source}: {path} cannot be read as CSV: {error}") from None
    target = options.get("target")
    if target is None:
        raise DataError(
            f"{source}: say which column to predict: csv:{path}?target=COLUMN (columns: {_some(table.columns)})"
        )
    dropped = [name for name in options.get("drop", "").split(",") if name]
    for name in (target, *dropped):
        _column(source, table, name)
    if not len(table):
        raise DataError(f"{source}: {path} has a header but no rows")
    values = table[target]
    table = table.drop(columns=[target, *dropped])
    spec = known.get("columns") or {str(name): _levels(source, table[name]) for name in table.columns}
    kind = kind_of(source, options.get("task") or known.get("kind") or _kind(values))
    x, names = _encode(source, table, spec)
    raw = Raw(
        kind=kind, inputs={"row": x}, targets=torch.empty(0), columns=names, record={"columns": spec, "kind": kind}
    )
    _set_targets(raw, source, values, known)
    return raw


def _set_targets(raw: Raw, source: str, values: Any, known: Mapping[str, Any]) -> None:
    if values.isna().any():
        raise DataError(f"{source}: target column {values.name!r}, row {_row(values.isna())} is empty")
    if raw.kind == "classification":
        raw.targets, raw.classes = labelled(_labels(values), known.get("classes"), source)
        raw.outputs = len(raw.classes)
    elif raw.kind != "regression":
        raise DataError(f"{source}: task={raw.kind}: must be classification or regression")
    elif _is_text(values):
        raise DataError(f"{source}: target column {values.name!r} holds text; regression needs numbers")
    else:
        raw.targets = torch.tensor(values.to_numpy(np.float64))[:, None]


def _encode(source: str, table: Any, spec: Mapping[str, list[str] | None]) -> tuple[torch.Tensor, list[str]]:
    """Rows (N, D) float64 and the names of the D columns; a text value not in ``spec`` becomes all zeros."""
    columns: list[np.ndarray[Any, Any]] = []
    names: list[str] = []
    for name, levels in spec.items():
        column = _column(source, table, name)
        if column.isna().any():
            raise DataError(f"{source}: column {name!r}, row {_row(column.isna())} is empty or NaN")
        if levels is not None:
            columns += [(column.astype(str) == level).to_numpy(np.float64) for level in levels]
            names += [f"{name}={level}" for level in levels]
        elif _is_text(column):
            raise DataError(f"{source}: column {name!r} holds text where numbers were trained on")
        else:
            columns.append(column.to_numpy(np.float64))
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
        near = difflib.get_close_matches(name, [str(c) for c in table.columns], n=1)
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


def _row(wrong: Any) -> int:
    """The line of the file, its header being line 1, of the first wrong value."""
    return int(wrong.to_numpy().argmax()) + 2


def _some(names: Any) -> str:
    return ", ".join(map(str, list(names)[:12])) + (", …" if len(names) > 12 else "")
