"""How far an exported model is from the PyTorch model it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...kit.batch import Inputs, apply, forward, size
from ...kit.capture import evaluating
from ...task import Task
from ..loop.evaluate import evaluate
from ..setup.objective import IGNORED
from .runner import Runner

SIZES = (1, 2, 7)


@dataclass
class Differences:
    """What adds up over batches; NaN in one model alone makes ``largest`` NaN."""

    largest: Tensor
    scale: Tensor
    total: float = 0.0
    values: int = 0
    same: int = 0
    answers: int = 0

    def add(self, expected: Tensor, found: Tensor, counted: Tensor | None) -> None:
        """expected, found (B, ..., C); ``counted`` marks the positions that are answers, None for regression."""
        expected, found = expected.double(), found.double()
        difference = torch.where(expected == found, 0.0, (expected - found).abs())
        self.largest = torch.maximum(self.largest, difference.max())
        self.scale = torch.maximum(self.scale, expected.abs().max())
        self.total += difference.sum().item()
        self.values += difference.numel()
        if counted is not None:
            self.same += int((expected.argmax(-1) == found.argmax(-1))[counted].sum())
            self.answers += int(counted.sum())


@torch.no_grad()
def compare(model: nn.Module, runner: Runner, task: Task, batches: Iterable[tuple[Inputs, Tensor]]) -> dict[str, Any]:
    """Differences over all batches and at three batch sizes, and the metric of both models.

    ``gap`` is the largest difference over the largest output (at least 1). ``gap_int8`` is the share of changed
    answers; for regression the mean difference over the largest output.
    """
    seen = Differences(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    first: Inputs | None = None
    with evaluating(model):
        for inputs, targets in batches:
            first = inputs if first is None else first
            counted = None if task.kind == "regression" else targets.cpu() != IGNORED
            seen.add(forward(model, inputs), forward(runner, inputs), counted)
        for some in [resize(first, n) for n in SIZES] if first is not None else ():
            seen.add(forward(model, some), forward(runner, some), None)
    report = _figures(seen, task) | {"batch_sizes": list(SIZES)}
    metric = task.metric
    return report | {
        f"{metric}_onnx": evaluate(runner, batches, task)[metric],
        f"{metric}_torch": evaluate(model, batches, task)[metric],
    }


def _figures(seen: Differences, task: Task) -> dict[str, Any]:
    largest, scale = seen.largest.item(), seen.scale.item()
    mean = seen.total / max(1, seen.values)
    figures = {"max_abs_difference": largest, "mean_abs_difference": mean, "largest_output": scale}
    figures |= {"gap": largest / max(1.0, scale), "answers": seen.answers or seen.values}
    if task.kind == "regression":
        return figures | {"gap_int8": mean / max(scale, 1e-12)}
    agreement = seen.same / max(1, seen.answers)
    return figures | {"top1_agreement": agreement, "gap_int8": 1 - agreement}


def resize(inputs: Inputs, count: int) -> Inputs:
    """The first ``count`` samples, begun again where there are fewer."""
    index = torch.arange(count) % size(inputs)
    return apply(lambda x: x[index.to(x.device)], inputs)
