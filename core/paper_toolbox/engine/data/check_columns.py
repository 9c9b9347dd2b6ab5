"""Columns, pixels and targets that teach nothing, or that one value rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .check_rows import Side
from .raw import Raw

NEARLY = 0.99  # share of one value from which a column is near-constant
FAR = 50  # distances between the quartiles from the median that make an outlier
Column = np.ndarray[Any, np.dtype[np.float64]]


def not_finite(raw: Raw) -> list[dict[str, Any]]:
    """How many values of each column are NaN (or empty) and infinite, the targets too; columns without any left out."""
    tables = [(name, x) for name, x in raw.inputs.items() if isinstance(x, Tensor)]
    rows = []
    for name, x in [*tables, ("targets", raw.targets)]:
        if x.is_floating_point():
            flat = x if x.dim() == 2 else x.reshape(-1, 1)  # an image has no columns
            nan, infinite = flat.isnan().sum(0), flat.isinf().sum(0)
            names = _names(raw, name, flat.shape[1])
            rows += [_row(names[j], nan[j], infinite[j]) for j in (nan + infinite).nonzero().flatten().tolist()]
    have = {row["column"] for row in rows}
    rows += [{"column": n, "nan": len(places), "infinite": 0} for n, places in raw.empty.items() if n not in have]
    return rows


def _row(name: str, nan: Tensor, infinite: Tensor) -> dict[str, Any]:
    return {"column": name, "nan": int(nan), "infinite": int(infinite)}


def _names(raw: Raw, name: str, count: int) -> list[str]:
    if name == "targets":
        return [raw.target or name] if count == 1 else [f"{name}[{j}]" for j in range(count)]
    if len(raw.columns) == count:
        return list(raw.columns)
    return [name] if count == 1 else [f"{name}[{j}]" for j in range(count)]


def columns(train: Side) -> dict[str, list[dict[str, Any]]]:
    """Of the inputs that are rows of numbers: constant, near-constant, and ruled by outliers."""
    found: dict[str, list[dict[str, Any]]] = {"constant": [], "near_constant": [], "outliers": []}
    levels = {f"{n}={v}" for n, values in train.raw.record.get("columns", {}).items() for v in values or ()}
    for name, rows in train.raw.inputs.items():
        if not (isinstance(rows, Tensor) and rows.dim() == 2 and rows.is_floating_point()):
            continue
        table = rows[train.index].double().numpy()
        for column, values in zip(_names(train.raw, name, table.shape[1]), table.T, strict=True):
            place, about = _column(values[np.isfinite(values)])
            if place and not (place == "near_constant" and column in levels):  # a rare word is no fault
                found[place].append({"column": column, **about})
    return found


def _column(values: Column) -> tuple[str, dict[str, Any]]:
    """What is remarkable about the finite values of a column, if anything, and the figures that say so."""
    if not len(values):
        return "", {}
    different, counts = np.unique(values, return_counts=True)
    share, usual = counts.max() / len(values), float(different[counts.argmax()])
    if share == 1 or share >= NEARLY:
        return ("constant" if share == 1 else "near_constant"), {"value": usual, "share": float(share)}
    count, worst = outliers(values)
    return ("outliers", {"count": count, "value": worst}) if count else ("", {})


def outliers(values: Column) -> tuple[int, float]:
    """How many values lie more than ``FAR`` quartile distances from the median, and the farthest."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    far = np.abs(values - middle)
    return (int((far > FAR * (high - low)).sum()) if high > low else 0), float(values[far.argmax()])


def blank(side: Side) -> int:
    """Images of one colour throughout."""
    count = 0
    for inputs in side.chunks():
        for x in inputs.values():
            if x.dim() == 4:
                flat = x.flatten(2)
                count += int((flat.amax(2) == flat.amin(2)).all(1).sum())
    return count


def target_range(train: Side, held: Side) -> dict[str, Any]:
    """Of regression targets (N, D), each: extent, mean, deviation, the share of the most frequent value, outliers."""
    rows = torch.cat([train.targets, held.targets]).double()
    names = _names(train.raw, "targets", rows.shape[1])
    return {name: _range(values) for name, values in zip(names, rows.numpy().T, strict=True)}


def _range(values: Column) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    _, counts = np.unique(values, return_counts=True)
    ends = {"min": float(values.min()), "max": float(values.max())}
    spread = {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "most_frequent": float(counts.max() / len(values)),
    }
    return ends | spread | {"outliers": outliers(values)[0]}


def class_counts(train: Side, held: Side) -> list[dict[str, Any]]:
    """(class, how many to train and to validate on), the largest first."""
    size = train.raw.outputs
    counts = [torch.bincount(t[t >= 0], minlength=size).tolist() for t in (train.targets, held.targets)]
    rows = [{"class": n, "training": a, "validation": b} for n, a, b in zip(train.raw.classes, *counts, strict=True)]
    return sorted(rows, key=lambda row: -row["training"])
