"""Gradient regularization by finite differences: prefer minima around which the gradient is small.

Karakida et al., "Understanding Gradient Regularization in Deep Learning: Efficient Finite-Difference Computation and
Implicit Bias", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.passes import moved, repeatable
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper
from torch import Tensor

#: how many ε g the two points lie from w whose gradients are subtracted
POINTS = {"forward": (1, 0), "backward": (0, -1), "centred": (1, -1)}


@dataclass(frozen=True, kw_only=True)
class FDGradReg(Wrapper):
    """The base descends L + γ/2 ‖∇L‖², whose gradient is g + γ H g; H g is a difference of gradients (eq. 5)."""

    closure = "gradient"

    variant: Literal["forward", "backward", "centred"] = param(
        "forward", "the second gradient is taken uphill, downhill, or both are"
    )
    eps: float = param(0.05, "ε: length of the difference, in gradients", above=0, search=(0.005, 0.5))
    gamma: float = param(0.05, "γ: weight of the squared norm of the gradient", low=0, search=(0.001, 0.5))

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any]) -> Any:
        """``closure`` runs on the same batch, with the same dropout; buffers move in the first run only."""
        closure = repeatable(closure, run.trained, run.model)
        loss = closure()
        slopes = {0: copies(run.grads())}
        *others, last = {*POINTS[self.variant]} - {0}
        for side in (*others, last):
            with moved(run.moved(), slopes[0], side * self.eps):
                closure()
            # equivalent: drop if: a copy of the last gradients holds the same, and takes their memory
            slopes[side] = run.grads() if side == last else copies(run.grads())
        # equivalent: swap upper, lower: the difference and its length change sign together
        upper, lower = POINTS[self.variant]
        curved = self.gamma / (self.eps * (upper - lower))
        for u, g, a, b in zip(run.grads(), slopes[0], slopes[upper], slopes[lower], strict=True):
            torch.sub(a, b, out=u).mul_(curved).add_(g)
        run.descend()
        return loss


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """The next pass may overwrite gradients in place."""
    return [x.clone() for x in tensors]


@hookimpl
def optimizer() -> dict[str, type[Wrapper]]:
    return {"fd_grad_reg": FDGradReg}
