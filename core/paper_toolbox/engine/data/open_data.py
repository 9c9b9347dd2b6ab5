"""Opening data: read a source, split it by seed, standardise it by what the training part alone shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from ...errors import DataError
from ...host import Host
from ...task import Task, TensorSpec
from .parts import Batches, Columns, Part, Rows, Scale
from .raw import Raw
from .sources import read
from .standardize import check_fits, fit

__all__ = ["Batches", "Columns", "Data", "Part", "open_data"]


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
    validation_data: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    host: Host | None = None,
) -> Data:
    """Open ``source`` (a built-in name, a path, ``scheme:rest`` or ``module:function``; ``?name=value`` options).

    ``validation`` is the share held out, unless ``validation_data`` names a source for that; 1 holds out everything,
    for new data with recorded ``preprocessing``, whose statistics and class names are then applied instead of fitted.
    """
    if not 0 < validation <= 1 or (validation == 1 and not preprocessing):
        raise DataError(f"validation = {validation}: the share held out must lie between 0 and 1")
    host = host or Host()
    raw = read_raw(source, seed, validation, preprocessing or {}, host)
    if isinstance(raw, Data):
        return raw if validation_data is None else _refused(source, validation_data)
    raw.check(source, few_is_fine=bool(preprocessing))
    raw = _named(raw, source, preprocessing or {})
    train, held = split(raw, source, seed, None if validation_data else validation)
    record = dict(preprocessing) if preprocessing else fit(raw, source, train)
    beside = raw
    if validation_data is not None:
        beside, held = held_out(raw, validation_data, seed, record, host)
        beside.check(validation_data, few_is_fine=True)
    return Data(source, _task(raw), _part(raw, record, train), _part(beside, record, held), record)


def read_raw(source: str, seed: int, validation: float, known: Mapping[str, Any], host: Host) -> Raw | Data:
    """What ``source`` names, unchecked."""
    raw = read(source, seed, validation, known, host)
    if not isinstance(raw, Raw | Data):
        raise DataError(f"{source} gave {type(raw).__name__}: it must give engine.data.Data or (inputs, targets)")
    return raw


def held_out(raw: Raw, source: str, seed: int, record: Mapping[str, Any], host: Host) -> tuple[Raw, Tensor]:
    """Validation data of its own, unchecked, read as ``raw`` was; and all its positions."""
    beside = read_raw(source, seed, 1, record, host)
    if isinstance(beside, Data):
        _refused(source, source)
    beside = _named(beside, source, record)
    if (there := _task(beside)) != (wanted := _task(raw)):
        raise DataError(f"{source} has {_inputs(there)}; the training data has {_inputs(wanted)}")
    return beside, torch.arange(len(beside.targets))


def _refused(source: str, validation_data: str) -> NoReturn:
    raise DataError(f"validation_data = {validation_data}: {source} comes with a split of its own")


def _inputs(task: Task) -> str:
    return f"{', '.join(f'{s.name} {s.shape} {s.dtype}' for s in task.inputs)} and {task.outputs} outputs"


def _named(raw: Raw, source: str, preprocessing: Mapping[str, Any]) -> Raw:
    """``raw`` with the inputs that ``preprocessing`` knows; the only input of both takes the recorded name."""
    known = preprocessing.get("standardize", {})
    if not (missing := set(known) - raw.inputs.keys()):
        return raw
    if len(known) == len(raw.inputs) == 1 and not raw.vocabularies and not raw.masks:
        return replace(raw, inputs={next(iter(known)): next(iter(raw.inputs.values()))})
    raise DataError(f"{source} has no input {min(missing)!r}; it has {', '.join(raw.inputs)}")


def split(raw: Raw, source: str, seed: int, validation: float | None) -> tuple[Tensor, Tensor]:
    """Positions of the two parts, sorted; stratified by class, consecutive for running text; None holds out nothing."""
    positions = torch.arange(len(raw.targets))
    if validation is None or validation == 1:
        return (positions[:0], positions) if validation else (positions, positions[:0])
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


def _part(raw: Raw, record: Mapping[str, Any], index: Tensor) -> Columns:
    rows: dict[str, Rows] = {}
    scales: dict[str, Scale] = {}
    for name, values in raw.inputs.items():
        rows[name] = values[index]
        if name in record.get("standardize", {}):
            check_fits(name, raw.shape(name), record["standardize"][name])
            scales[name] = Scale.of(record["standardize"][name], len(raw.shape(name)))
    targets = raw.targets[index]
    if raw.kind == "regression" and "targets" in record:
        targets = Scale.of(record["targets"], 1)(targets)
    return Columns(rows, scales, targets, raw.layout)


def _task(raw: Raw) -> Task:
    """What a model of this data must take and give."""
    integers = {*raw.vocabularies, *raw.masks}
    inputs = tuple(
        TensorSpec(name, raw.shape(name), "int64" if name in integers else "float32", raw.vocabularies.get(name))
        for name in raw.inputs
    )
    outputs = raw.targets.shape[1] if raw.kind == "regression" else raw.outputs
    return Task(raw.kind, inputs, outputs, raw.classes, raw.layout)
