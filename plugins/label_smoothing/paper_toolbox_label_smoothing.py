"""Label smoothing: targets that keep a small part for every class.

Müller, Kornblith, Hinton, "When Does Label Smoothing Help?", NeurIPS 2019, arXiv:1906.02629, section 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from paper_toolbox import Loss, hookimpl, param
from paper_toolbox.kit.precision import widen
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Loss):
    """Cross-entropy with targets mixed with the uniform distribution."""

    traits = ("above_zero",)

    alpha: float = param(0.1, "part of each target shared by all classes alike", low=0, high=1, search=(0.01, 0.3))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch. logits (N, K); targets (N,) int64, or (N, K) probabilities."""
        log_p = F.log_softmax(widen(logits), 1)  # (N, K)
        right = F.nll_loss(log_p, targets) if targets.ndim == 1 else -(targets * log_p).sum(1).mean()
        return (1 - self.alpha) * right - self.alpha * log_p.mean()  # -(1/K) Σ_k log p_k, mean over the batch


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"label_smoothing": LabelSmoothing}
