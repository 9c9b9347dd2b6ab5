"""What int8 export is told: the plan and the calibration inputs, which travel on the model until it is exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import DataError, NothingChanged, ParamError
from .batch import Inputs, apply, size, tensors
from .surgery import find

QUANTIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RECORD = "toolbox_int8"


@dataclass(frozen=True)
class QuantPlan:
    """How weights and activations become 8 bits wide. ``skip`` are patterns of layer paths that stay in float."""

    activations: Literal["uint8", "int8"] = "uint8"
    weights: Literal["int8", "uint8"] = "int8"
    per_channel: bool = True
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = 99.99
    samples: int = 128
    skip: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON can write them."""
        return {**dataclasses.asdict(self), "skip": list(self.skip)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> QuantPlan:
        """The plan that ``to_json`` wrote."""
        try:
            return cls(**{**content, "skip": tuple(content.get("skip", ()))})
        except TypeError as error:
            raise ParamError(f"a quantization plan cannot be read: {error}") from error


def take_samples(batches: Iterable[tuple[Inputs, Any]], count: int) -> list[Inputs]:
    """The first ``count`` inputs of ``batches``, batch by batch; no more than these is ever held."""
    taken: list[Inputs] = []
    missing = count
    for inputs, _ in batches:
        taken.append(apply(lambda x: x[:missing].detach().cpu().clone(), inputs))  # noqa: B023  # used at once
        missing -= size(taken[-1])
        if missing <= 0:
            break
    return taken


def plan_int8(model: nn.Module, plan: QuantPlan, samples: list[Inputs]) -> None:
    """Record ``plan`` and its calibration inputs, a list of batches, on ``model``; nothing is computed yet."""
    paths = [path for path, _ in find(model, QUANTIZABLE)]
    if not paths:
        raise NothingChanged("int8 found 0 layers: it looks for Linear, Conv1d, Conv2d and Conv3d")
    for pattern in plan.skip:
        if not any(fnmatch(path, pattern) for path, _ in model.named_modules() if path):
            raise ParamError(f"int8.skip: {pattern!r} is the path of no layer; there are {', '.join(paths[:8])}")
    if all(skipped(path, plan.skip) for path in paths):
        raise NothingChanged(f"int8 found 0 layers: skip = {', '.join(plan.skip)} leaves all {len(paths)} in float")
    if not samples or not size(samples[0]):
        raise DataError("int8 needs at least one calibration input, and its batches are empty")
    setattr(model, _RECORD, (plan, join(samples)))


def planned(model: nn.Module) -> tuple[QuantPlan, Inputs] | None:
    """The plan and all calibration inputs as one batch, or None where int8 is not planned."""
    found: tuple[QuantPlan, Inputs] | None = getattr(model, _RECORD, None)
    return found


def skipped(path: str, patterns: Iterable[str]) -> bool:
    """Whether the layer at ``path``, or one around it, matches a pattern."""
    parts = path.split(".")
    around = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatch(name, pattern) for name in around for pattern in patterns)


def join(samples: list[Inputs]) -> Inputs:
    """Batches one after the other as one batch, the layout kept."""
    first = samples[0]
    columns = [torch.cat(column) for column in zip(*map(tensors, samples), strict=True)]
    if isinstance(first, Tensor):
        return columns[0]
    return dict(zip(first, columns, strict=True)) if isinstance(first, Mapping) else tuple(columns)


def split(inputs: Inputs, count: int) -> list[Inputs]:
    """One batch as batches of at most ``count``."""
    cuts = [*range(0, size(inputs), count), size(inputs)]
    return [apply(lambda x, a=a, b=b: x[a:b], inputs) for a, b in pairwise(cuts)]  # type: ignore[misc]  # bound early
