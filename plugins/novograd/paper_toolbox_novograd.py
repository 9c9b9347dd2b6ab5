"""NovoGrad: gradients divided by a running norm of their layer, before they enter the momentum.

Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NovoGrad(Rule):
    """One second moment for a whole tensor; the decay stands beside the scaled gradient (Algorithm 1)."""

    traits = ("gradient_scale",)
    view = "tensor"

    lr: float = param(1e-2, "step size", low=0)
    betas: tuple[float, float] = param((0.95, 0.98), "decay of the momentum and of the squared norm", low=0, below=1)
    eps: float = param(1e-8, "added to the root of the second moment", low=0)
    weight_decay: float = param(1e-3, "decay, added to the scaled gradient", low=0)
    grad_averaging: bool = param(False, "a running mean for the running sum: 1 - beta times what enters it")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        single = torch.promote_types(p.dtype, torch.float32)  # a squared norm would leave the range of fp16
        # equivalent: zeros → ones: the first step keeps nothing of it
        return {"m": torch.zeros_like(p), "v": torch.zeros([1] * p.ndim, dtype=single, device=p.device)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), m, v = self.betas, state["m"], state["v"]
        first = state["step"] == 1  # sets both moments, with no share of a start at 0
        kept = 0.0 if first else b2
        norm = torch.linalg.vector_norm(grad, dtype=v.dtype)
        v.mul_(kept).add_(norm.square(), alpha=1 - kept)
        share = 1 - b1 if self.grad_averaging and not first else 1.0
        m.mul_(b1).addcdiv_(grad, v.sqrt().add_(self.eps), value=share).add_(p, alpha=share * self.weight_decay)
        p.sub_(m, alpha=self.lr)


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"novograd": NovoGrad}
