"""Cross-entropy, the baseline criterion of classification (Goodfellow et al., Deep Learning, section 6.2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from paper_toolbox import Loss, hookimpl
from paper_toolbox.kit.precision import widen
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Minus the log of the probability that the softmax gives to the right class."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch. logits (N, C); targets (N,) int64, or (N, C) probabilities."""
        return F.cross_entropy(widen(logits), targets)


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"cross_entropy": CrossEntropy}
