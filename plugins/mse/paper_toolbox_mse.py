"""Mean squared error, the baseline criterion of regression (Goodfellow et al., Deep Learning, section 6.2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from paper_toolbox import Loss, hookimpl
from paper_toolbox.kit.precision import widen
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(Loss):
    """The mean square of prediction minus target: fits the conditional mean."""

    tasks: ClassVar[tuple[str, ...]] = ("regression",)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch and the outputs. logits (N, D), the predictions; targets (N, D)."""
        return F.mse_loss(widen(logits), widen(targets))


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"mse": MeanSquaredError}
