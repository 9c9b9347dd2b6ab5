"""AMP: descend with the gradient at weights that a few ascent steps made worse.

Zheng et al., "Regularizing Neural Networks via Adversarial Model Perturbation", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit import vector
from paper_toolbox.kit.passes import kept, repeatable
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper
from torch import Tensor

TINY = 1e-12  # added to the norm that is divided by, as the authors do


@dataclass(frozen=True, kw_only=True)
class AMP(Wrapper):
    """Ascend from w within ε, take the gradient there, come back, and let the base step with it (Algorithm 1)."""

    closure = "gradient"

    epsilon: float = param(0.5, "ε: largest norm of the perturbation", low=0, search=(0.05, 5))
    inner_lr: float = param(1.0, "ζ: step size of the ascent", low=0, search=(0.1, 10))
    inner_iter: int = param(1, "N: steps of the ascent, one more pass each", low=1)
    scope: Literal["tensor", "global"] = param("tensor", "the norm is that of each tensor, or of all together")

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any]) -> Any:
        """``closure`` runs on the same batch, with the same dropout; buffers move in the first run only."""
        closure = repeatable(closure, run.trained, run.model)
        loss = closure()
        moved = run.moved()
        away = [torch.zeros_like(p) for p in moved]
        with kept(moved) as start:
            for _ in range(self.inner_iter):
                for d, g in zip(away, run.grads(), strict=True):
                    d.add_(g, alpha=self.inner_lr)
                self.bound(away)
                for p, w, d in zip(moved, start, away, strict=True):
                    p.copy_(w).add_(d)
                closure()
        run.descend()
        return loss

    def bound(self, away: list[Tensor]) -> None:
        """What is longer than ε is shortened to ε."""
        norms = vector.norms(away) if self.scope == "tensor" else [vector.norm(away)] * len(away)
        for d, n in zip(away, norms, strict=True):
            d.mul_((self.epsilon / (n + TINY)).clamp(max=1).to(d.device, d.dtype))


@hookimpl
def optimizer() -> dict[str, type[Wrapper]]:
    return {"amp": AMP}
