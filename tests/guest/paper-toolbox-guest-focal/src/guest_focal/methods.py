"""The loss, and how hard it finds a model's samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from paper_toolbox import Diagnostic, Loss, param
from paper_toolbox.kit.batch import forward
from paper_toolbox.kit.capture import evaluating
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Focal(Loss):
    """-(1 - p)^γ log p, with p the probability of the right class."""

    gamma: float = param(2.0, "how much less an easy sample counts", low=0)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch. logits (B, C), targets (B,) int64 -> ()."""
        log_p = F.log_softmax(logits, dim=1).gather(1, targets[:, None])  # (B, 1)
        return -(torch.expm1(log_p).neg() ** self.gamma * log_p).mean()


@dataclass(frozen=True, kw_only=True)
class Hardness(Diagnostic):
    """The mean of 1 - p over all samples."""

    @torch.no_grad()
    def measure(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, Any]:
        """{"hardness": a number from 0 to 1}."""
        with evaluating(model):
            hard = [1 - forward(model, x).softmax(1).gather(1, y[:, None]) for x, y in batches]
        return {"hardness": torch.cat(hard).mean().item()}
