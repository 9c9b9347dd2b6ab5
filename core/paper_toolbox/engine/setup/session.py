"""What one training run is made of, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from ...host import Host
from ...kinds import Observer, Regimen
from ...kit.batch import Inputs
from ...recipe import Recipe
from ..compatibility.case import Finding
from ..data.open_data import Batches, Data
from .objective import Objective

Sample = tuple[Tensor, Inputs, Tensor]


@dataclass
class Session:
    """All that one training run is made of. ``wrapped`` is the model as several devices call it."""

    recipe: Recipe
    host: Host
    data: Data
    model: nn.Module
    wrapped: nn.Module
    objective: Objective
    optimizer: Any
    closure: str
    accelerator: Accelerator
    batches: Batches
    regimen: Regimen | None = None
    scheduled: bool = False  # the optimizer sets its step size itself
    notes: Sequence[Finding] = ()  # what its user should be careful about
    observers: Sequence[tuple[str, Observer]] = ()
    again: Callable[[], Session] | None = None  # as it was before its first step; None: as ``start`` makes it

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return math.ceil(len(self.batches) / self.recipe.training.accumulate)

    @property
    def steps_total(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.training.epochs * self.steps_per_epoch


@dataclass
class Progress:
    """Where a run stands; all of it goes into the checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    samples: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
