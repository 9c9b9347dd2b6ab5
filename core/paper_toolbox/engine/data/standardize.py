"""Standardising: statistics of the training part, and whether recorded ones fit other data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from .raw import Raw

SAMPLE = 2048  # images decoded to fit the statistics of a folder too large for memory


def fit(raw: Raw, source: str, train: Tensor) -> dict[str, Any]:
    """The preprocessing record, from the training part."""
    if not len(train):
        raise DataError(f"{source}: {len(raw.targets)} samples leave none to train on")
    scaled = {name: rows for name, rows in raw.inputs.items() if name not in raw.vocabularies and name not in raw.masks}
    record: dict[str, Any] = {"source": source, "standardize": {}}
    for name, rows in scaled.items():
        some = train if isinstance(rows, Tensor) else train[:: -(-len(train) // SAMPLE)]
        record["standardize"][name] = statistics(rows.index_select(0, some))
    if raw.kind == "regression":
        record["targets"] = statistics(raw.targets[train])
    elif raw.classes:
        record["classes"] = list(raw.classes)
    return record | raw.record


def statistics(x: Tensor) -> dict[str, Any]:
    """x (N, ...) -> mean and deviation along the axis of a sample that carries channels or columns."""
    axis = 1 if x.dim() == 3 else 0  # (T, D) rows of features; (D,) columns and (C, ...) channels come first
    dims = [d for d in range(x.dim()) if d != axis + 1]
    count = x.numel() / x.shape[axis + 1]
    shape = [-1 if d == axis + 1 else 1 for d in range(x.dim())]
    chunks = torch.split(x, 1024)  # bounds the float64 copies
    mean = torch.stack([chunk.double().sum(dims) for chunk in chunks]).sum(0) / count
    squares = [(chunk.double() - mean.view(shape)).square().sum(dims) for chunk in chunks]
    std = (torch.stack(squares).sum(0) / count).sqrt()
    std[std <= 1e-7 * mean.abs()] = 1.0  # a constant column stays 0
    return {"mean": mean.tolist(), "std": std.tolist(), "axis": axis}


def check_fits(name: str, shape: tuple[int, ...], statistics: Mapping[str, Any]) -> None:
    recorded, axis = len(statistics["mean"]), statistics["axis"]
    if axis >= len(shape) or shape[axis] != recorded:
        raise DataError(
            f"{name} has shape {shape}, but its recorded statistics have {recorded} entries along axis {axis}"
        )
