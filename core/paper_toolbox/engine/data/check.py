"""What is wrong with data: errors that training would refuse, and warnings of figures that would mislead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from ...host import Host
from ...kit.batch import tensors
from .check_columns import blank, class_counts, columns, not_finite, target_range
from .check_rows import Side, rows_twice, text_seen
from .check_words import warnings
from .open_data import Data, held_out, read_raw, split
from .raw import Raw
from .standardize import fit

Report = dict[str, Any]


def check_data(
    source: str, host: Host, *, seed: int = 0, validation: float = 0.2, validation_data: str | None = None
) -> Report:
    """What ``source`` holds and all that is wrong with it, the split being the one that training makes."""
    raw = read_raw(source, seed, validation, {}, host)
    if isinstance(raw, Data):
        train, held, problems = _sides(raw)
    else:
        train, held, problems = _parts(raw, source, host, seed, validation, validation_data)
    report: Report = {
        "data": source,
        "validation_data": validation_data,
        "kind": train.raw.kind,
        "samples": {"training": len(train.index), "validation": len(held.index)},
        "not_finite": not_finite(train.raw) + (not_finite(held.raw) if held.raw is not train.raw else []),
        "columns": columns(train),
        "blank": blank(train) + blank(held),
        "twice": rows_twice(train, held),
        "text_seen": text_seen(train, held),
    }
    if train.raw.kind == "regression":
        report["targets"] = target_range(train, held)
    elif train.raw.kind == "classification":
        report["classes"] = class_counts(train, held)
    report["guessing"] = _guessing(train, held)
    found = [{"level": "error", "message": message} for message in problems]
    found += [{"level": "warning", "message": message} for message in warnings(report)]
    return report | {"findings": found, "errors": len(problems), "warnings": len(found) - len(problems)}


def refuse_errors(report: Report) -> None:
    """A ``DataError`` where training could not use the data."""
    if count := report["errors"]:
        first = next(each["message"] for each in report["findings"] if each["level"] == "error")
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise DataError(f"{report['data']} cannot be trained on: {first}{more}")


def _parts(
    raw: Raw, source: str, host: Host, seed: int, validation: float, validation_data: str | None
) -> tuple[Side, Side, list[str]]:
    """Both parts and every problem; where no split can be made, all samples are training samples."""
    _whole(raw, source)
    problems, every = list(raw.problems(few_is_fine=False)), torch.arange(len(raw.targets))
    if validation_data is not None:
        beside, held = held_out(raw, validation_data, seed, fit(raw, source, every), host)
        _whole(beside, validation_data)
        problems += [f"{validation_data}: {each}" for each in beside.problems(few_is_fine=True)]
        return Side(raw, every), Side(beside, held), problems
    try:
        train, held = split(raw, source, seed, validation)
    except DataError as error:
        return Side(raw, every), Side(raw, every[:0]), problems or [str(error)]
    return Side(raw, train), Side(raw, held), problems


def _whole(raw: Raw, source: str) -> None:
    """Without samples, or with inputs and targets of unlike number, there is nothing to look into."""
    if {len(raw.targets), *map(len, raw.inputs.values())} != {len(raw.targets)} or not len(raw.targets):
        raw.check(source, few_is_fine=False)


def _sides(data: Data) -> tuple[Side, Side, list[str]]:
    """The parts of data that came split, as they were standardised."""
    sides, task = [], data.task
    for part in (data.train, data.validation):
        inputs, targets = part.take(torch.arange(len(part)))
        named = dict(zip((spec.name for spec in task.inputs), tensors(inputs), strict=True))
        raw = Raw(kind=task.kind, inputs=dict(named), targets=targets, classes=task.classes, outputs=task.outputs)
        raw.vocabularies = {spec.name: spec.vocabulary for spec in task.inputs if spec.vocabulary is not None}
        sides.append(Side(raw, torch.arange(len(part))))
    return sides[0], sides[1], []


def _guessing(train: Side, held: Side) -> dict[str, float]:
    """What the best constant answer, learned in training, scores on the validation part."""
    targets, wanted = _known(train.targets), _known(held.targets)
    if not len(targets) or not len(wanted):
        return {}
    if train.raw.kind == "regression":
        return {"rmse": float((wanted - targets.mean(0)).square().mean().sqrt())}
    return {"accuracy": float((wanted == targets.mode().values).double().mean())}


def _known(targets: Tensor) -> Tensor:
    """Without those that are missing or do not count."""
    return targets[targets.isfinite().all(1)] if targets.is_floating_point() else targets[targets >= 0]
