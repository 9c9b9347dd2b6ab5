"""The optimizer of a run over its parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ... import needs
from ...errors import NeedError, ParamError
from ...kinds import Optimizer
from ...kit.storage import PLAIN, Storage
from ...kit.wrap import asks_for_storage
from ...recipe import Training
from .objective import Objective


def build_optimizer(
    method: Optimizer | None, model: nn.Module, objective: Objective, settings: Training, batches: int
) -> torch.optim.Optimizer:
    """The method, or torch's AdamW, over everything that is trained; ``batches`` is how many an epoch has."""
    named = [*model.named_parameters(), *((f"loss.{name}", p) for name, p in objective.named_parameters())]
    groups = grouped([(name, p) for name, p in named if p.requires_grad], settings.groups)
    if method is None:
        if storage_of(settings) != PLAIN:
            raise NeedError("weights, optimizer_state and offload_state need a named optimizer: --plugin adamw")
        return _checked(torch.optim.AdamW(groups), settings.groups)
    steps = math.ceil(batches / settings.accumulate)
    available: dict[str, Any] = {"model": model, "engine": settings.engine}
    available |= {"steps_per_epoch": steps, "steps_total": steps * settings.epochs}
    if (storage := storage_of(settings)) != PLAIN:
        asks_for_storage(method, type(method).__name__)
        available["storage"] = storage
    return _checked(method.build(groups, **needs.supply(method.build, available)), settings.groups)


def storage_of(settings: Training) -> Storage:
    """How the run's optimizer keeps weights and state."""
    weights: Any = {"fp32": "plain"}.get(settings.weights, settings.weights.removeprefix("bf16_"))
    return Storage(settings.optimizer_state, weights, settings.offload_state)


def narrow(model: nn.Module, settings: Training) -> None:
    """Weights of two axes or more in bfloat16, if so asked for; biases, gains and statistics stay as they are."""
    if settings.weights == "fp32":
        return
    if settings.precision != "bf16":
        raise NeedError(f"weights = {settings.weights} needs precision=bf16, the arithmetic that takes them")
    for p in model.parameters():
        if p.ndim > 1 and p.dtype == torch.float32:
            p.data = p.data.to(torch.bfloat16)


def grouped(named: Iterable[tuple[str, Tensor]], overrides: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Parameter groups: ``{"*.bias": {"lr": 0.1}}`` overrides fields where names match; the last match wins."""
    named = list(named)
    if not overrides:
        return [p for _, p in named]
    for pattern in overrides:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            some = ", ".join(name for name, _ in named[:3])
            raise ParamError(f"groups: {pattern!r} matches no parameter; names look like {some}")
    found: dict[str, dict[str, Any]] = {}
    for name, p in named:
        own = {k: v for pattern, fields in overrides.items() if fnmatchcase(name, pattern) for k, v in fields.items()}
        found.setdefault(repr(sorted(own.items())), {"params": [], **own})["params"].append(p)
    return list(found.values())


def _checked(optimizer: torch.optim.Optimizer, overrides: Mapping[str, Mapping[str, Any]]) -> torch.optim.Optimizer:
    """Refuse a field that no part of the optimizer has; torch would keep it and never look at it."""
    known = optimizer.defaults.keys()
    for pattern, fields in overrides.items():
        for name in fields.keys() - known:
            raise ParamError(
                f"groups: {pattern!r}: the optimizer has no field {name!r} (it has {', '.join(sorted(known))})"
            )
    return optimizer
