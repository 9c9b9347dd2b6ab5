"""Adaptive gradient clipping: no unit's gradient may be large beside the unit's weights.

Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.capture import heads
from paper_toolbox.kit.wrap import Transform, WrappedOptimizer
from torch import Tensor

TINY = 1e-6  # the least norm of a gradient that is divided by


@dataclass(frozen=True, kw_only=True)
class AGC(Transform):
    """Scale down the gradient of each unit whose norm exceeds λ times that of its weights (section 4.1, eq. 3)."""

    traits = ("gradient_scale",)

    clip_factor: float = param(0.01, "λ: largest ratio of a unit's gradient to its weights", low=0, search=(1e-3, 0.32))
    eps: float = param(1e-3, "least norm that a unit's weights count as", low=0)
    clip_head: bool = param(False, "clip the last linear layer, too; the paper leaves it out")

    def transform(self, run: WrappedOptimizer) -> None:
        """Without ``model`` the last layer is not known, and every tensor is clipped."""
        left = set() if self.clip_head or run.model is None else heads(run.model)
        for p, g in zip(run.moved(), run.grads(), strict=True):
            if p not in left:
                g.mul_(self.scale(p, g))

    def scale(self, w: Tensor, g: Tensor) -> Tensor:
        """What each unit's gradient is multiplied by. w, g (O, ...) -> (O, 1, ...); of vectors (1,)."""
        norm, bound = unitwise(g), self.clip_factor * unitwise(w).clamp(min=self.eps)
        return torch.where(norm > bound, bound / norm.clamp(min=TINY), 1.0)


def unitwise(x: Tensor) -> Tensor:
    """‖x‖ of each output unit, in float32 or wider; of the whole tensor where it has at most one axis."""
    axes = tuple(range(1, x.ndim)) or None
    wide = torch.promote_types(x.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=wide)
    return norm


@hookimpl
def optimizer() -> dict[str, type[Transform]]:
    return {"agc": AGC}
