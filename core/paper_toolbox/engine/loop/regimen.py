"""One epoch as a regimen trains it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import NeedError
from ...kit.batch import Inputs
from ..setup.session import Session


class Epoch:
    """What ``Regimen.train`` is given, once an epoch: ``model``, ``optimizer``, ``batches``, ``loss``, ``backward``."""

    def __init__(self, session: Session) -> None:
        if session.objective.asked:
            raise NeedError(
                f"a regimen's losses see outputs and targets alone, not {', '.join(session.objective.asked)}"
            )
        self.session = session
        self.model: nn.Module = session.wrapped
        self.optimizer: Any = session.optimizer
        self.samples = 0
        self.losses: list[Tensor] = []

    @property
    def batches(self) -> Iterator[tuple[Inputs, Tensor]]:
        """(inputs, targets) of this epoch, shuffled."""
        for index, inputs, targets in self.session.batches.indexed():
            self.samples += len(index)
            yield inputs, targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The run's criterion and penalties on a model's outputs."""
        loss = self.session.objective.score(outputs, targets)
        self.losses.append(loss.detach())
        return loss

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``, scaled and shared between processes as the run needs it."""
        self.session.accelerator.backward(loss)

    def mean_loss(self) -> float:
        """The mean of every loss that was asked for."""
        return torch.stack(self.losses).double().mean().item() if self.losses else float("nan")
