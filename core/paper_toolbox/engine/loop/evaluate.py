"""Loss and metric of a model on a part of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...kit.batch import Inputs, forward
from ...kit.capture import evaluating
from ...task import Task
from ..setup.objective import IGNORED, plain_loss


@torch.no_grad()
def evaluate(
    model: nn.Module | Callable[..., Any], batches: Iterable[tuple[Inputs, Tensor]], task: Task, scale: float = 1.0
) -> dict[str, float]:
    """``{"loss", "accuracy"}``, for regression ``{"loss", "rmse"}`` with rmse times ``scale``, the targets' unit."""
    if not isinstance(model, nn.Module):
        return _figures(model, batches, task, scale)
    with evaluating(model):
        return _figures(model, batches, task, scale)


def _figures(
    model: nn.Module | Callable[..., Any], batches: Iterable[tuple[Inputs, Tensor]], task: Task, scale: float
) -> dict[str, float]:
    loss_of, total, good, count = plain_loss(task), torch.zeros((), dtype=torch.float64), torch.zeros(()), 0
    for inputs, targets in batches:
        outputs = forward(model, inputs).float()
        if task.kind == "tokens":
            outputs, targets = outputs.flatten(0, 1), targets.flatten()
            kept = targets != IGNORED
            outputs, targets = outputs[kept], targets[kept]
        total = total.to(outputs.device) + loss_of(outputs, targets).double() * len(targets)
        if task.kind != "regression":
            good = good.to(outputs.device) + (outputs.argmax(-1) == targets).sum()
        count += len(targets)
    loss = total.item() / count
    if task.kind == "regression":
        return {"loss": loss, "rmse": math.sqrt(loss) * scale}
    return {"loss": loss, "accuracy": good.item() / count}


def target_scale(preprocessing: dict[str, Any]) -> float:
    """What one standardised unit of a regression target is worth; the root mean square over several targets."""
    scales = (preprocessing.get("targets") or {}).get("std", [1.0])
    return math.sqrt(sum(s * s for s in scales) / len(scales))
