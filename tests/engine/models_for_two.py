"""Models that several processes trip over."""

from __future__ import annotations

import os

from paper_toolbox.task import Task
from torch import Tensor, nn


class Branching(nn.Module):
    """Takes its second layer in every other training step alone."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.always, self.sometimes = nn.Linear(features, outputs), nn.Linear(features, outputs)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.always(x)
        self.steps += self.training
        return out + self.sometimes(x) if self.training and self.steps % 2 else out


class Failing(nn.Linear):
    """Fails in the second process's third step."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 5 and os.environ.get("RANK") == "1":
            raise OSError(28, "No space left on device", "/scratch")
        return super().forward(x)


def branching(task: Task) -> nn.Module:
    return Branching(task.inputs[0].shape[0], task.outputs)


def failing(task: Task) -> nn.Module:
    return Failing(task.inputs[0].shape[0], task.outputs)
