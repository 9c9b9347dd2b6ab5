"""MaxSup: suppress the largest logit, whichever it is, where label smoothing suppresses the right one.

Zhou et al., "MaxSup: Overcoming Representation Collapse in Label Smoothing", 2025, arXiv:2502.15798.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from paper_toolbox import Loss, hookimpl, param
from paper_toolbox.kit.precision import widen
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MaxSup(Loss):
    """Cross-entropy plus a small multiple of the largest logit's height over the mean logit."""

    traits = ("above_zero",)

    alpha_start: float = param(0.1, "weight of the penalty as the run begins", low=0, search=(0.01, 0.3))
    alpha_end: float = param(0.2, "weight as the run ends; between them it is linear", low=0, search=(0.01, 0.3))

    def __call__(self, logits: Tensor, targets: Tensor, *, progress: float | None = None) -> Tensor:
        """Mean over the batch. logits (N, K); targets (N,) int64, or (N, K) probabilities; progress 0..1."""
        z = widen(logits)
        # Differs: the weight moves with every step, not once per epoch; without progress it stays at alpha_start
        alpha = self.alpha_start + (self.alpha_end - self.alpha_start) * (progress or 0.0)
        return F.cross_entropy(z, targets) + alpha * (z.max(1).values - z.mean(1)).mean()


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"max_sup": MaxSup}
