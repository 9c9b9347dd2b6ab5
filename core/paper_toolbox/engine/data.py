"""Opening data: read a source, split it by seed, standardise it by what the training part alone shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from ..errors import DataError
from ..host import Host
from ..task import Task, TensorSpec
from .parts import Batches, Columns, Part, Rows, Scale
from .sources import Raw, read

__all__ = ["Batches", "Columns", "Data", "Part", "open_data"]

SAMPLE = 2048  # images decoded to fit the statistics of a folder too large for memory


@dataclass(frozen=True)
class Data:
    """A split source. ``preprocessing`` is what JSON can write and ``open_data`` needs to treat new data alike."""

    source: str
    task: Task
    train: Part
    validation: Part
    preprocessing: dict[str, Any]


def open_data(
    source: str,
    *,
    seed: int = 0,
    validation: float = 0.2,
    preprocessing: Mapping[str, Any] | None = None,
    host: Host | None = None,
) -> Data:
    """Open ``source`` (a built-in name, a path, ``scheme:rest`` or ``module:function``; ``?name=value`` options).

    ``validation`` is the share held out; 1 holds out everything, for new data with recorded ``preprocessing``, whose
    statistics and class names are then applied instead of fitted.
    """
    if not 0 < validation <= 1 or (validation == 1 and not preprocessing):
        raise DataError(f"validation = {validation}: the share held out must lie between 0 and 1")
    raw = read(source, seed, validation, preprocessing or {}, host or Host())
    if isinstance(raw, Data):
        return raw
    if not isinstance(raw, Raw):
        raise DataError(f"{source} gave {type(raw).__name__}: it must give engine.data.Data or (inputs, targets)")
    raw.check(source, few_is_fine=bool(preprocessing))
    raw = _named(raw, source, preprocessing or {})
    train, held = _split(raw, source, seed, validation)
    record = dict(preprocessing) if preprocessing else _fit(raw, source, train)
    return Data(source, _task(raw), _part(raw, record, train), _part(raw, record, held), record)


def _named(raw: Raw, source: str, preprocessing: Mapping[str, Any]) -> Raw:
    """``raw`` with the inputs that ``preprocessing`` knows; the only input of both takes the recorded name."""
    known = preprocessing.get("standardize", {})
    if not (missing := set(known) - raw.inputs.keys()):
        return raw
    if len(known) == len(raw.inputs) == 1 and not raw.vocabularies and not raw.masks:
        return replace(raw, inputs={next(iter(known)): next(iter(raw.inputs.values()))})
    raise DataError(f"{source} has no input {min(missing)!r}; it has {', '.join(raw.inputs)}")


def _split(raw: Raw, source: str, seed: int, validation: float) -> tuple[Tensor, Tensor]:
    """Positions of the two parts, sorted; stratified by class, consecutive for running text."""
    positions = torch.arange(len(raw.targets))
    if validation == 1:
        return positions[:0], positions
    if raw.running:
        held = max(1, round(validation * len(positions)))
        return positions[:-held], positions[-held:]
    classes = raw.targets.numpy() if raw.kind == "classification" else None
    try:
        train, held = train_test_split(positions.numpy(), test_size=validation, random_state=seed, stratify=classes)
    except ValueError as error:
        raise DataError(
            f"{source}: {len(positions)} samples cannot be split with validation = {validation}: {error}"
        ) from None
    return torch.from_numpy(train).sort().values, torch.from_numpy(held).sort().values


def _fit(raw: Raw, source: str, train: Tensor) -> dict[str, Any]:
    """The preprocessing record, from the training part."""
    if not len(train):
        raise DataError(f"{source}: {len(raw.targets)} samples leave none to train on")
    scaled = {name: rows for name, rows in raw.inputs.items() if name not in raw.vocabularies and name not in raw.masks}
    record: dict[str, Any] = {"source": source, "standardize": {}}
    for name, rows in scaled.items():
        some = train if isinstance(rows, Tensor) else train[:: -(-len(train) // SAMPLE)]
        record["standardize"][name] = _statistics(rows.index_select(0, some))
    if raw.kind == "regression":
        record["targets"] = _statistics(raw.targets[train])
    elif raw.classes:
        record["classes"] = list(raw.classes)
    return record | raw.record


def _statistics(x: Tensor) -> dict[str, Any]:
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


def _part(raw: Raw, record: Mapping[str, Any], index: Tensor) -> Columns:
    rows: dict[str, Rows] = {}
    scales: dict[str, Scale] = {}
    for name, values in raw.inputs.items():
        rows[name] = values[index]
        if name in record.get("standardize", {}):
            _check_fits(name, raw.shape(name), record["standardize"][name])
            scales[name] = Scale.of(record["standardize"][name], len(raw.shape(name)))
    targets = raw.targets[index]
    if raw.kind == "regression" and "targets" in record:
        targets = Scale.of(record["targets"], 1)(targets)
    return Columns(rows, scales, targets, raw.layout)


def _check_fits(name: str, shape: tuple[int, ...], statistics: Mapping[str, Any]) -> None:
    recorded, axis = len(statistics["mean"]), statistics["axis"]
    if axis >= len(shape) or shape[axis] != recorded:
        raise DataError(
            f"{name} has shape {shape}, but its recorded statistics have {recorded} entries along axis {axis}"
        )


def _task(raw: Raw) -> Task:
    """What a model of this data must take and give."""
    integers = {*raw.vocabularies, *raw.masks}
    inputs = tuple(
        TensorSpec(name, raw.shape(name), "int64" if name in integers else "float32", raw.vocabularies.get(name))
        for name in raw.inputs
    )
    outputs = raw.targets.shape[1] if raw.kind == "regression" else raw.outputs
    return Task(raw.kind, inputs, outputs, raw.classes, raw.layout)
