"""Adam and AdaMax: steps scaled by running moments of the gradient.

Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    """The mean of the gradient over the root of its second moment, corrected for their start at 0 (Algorithm 1)."""

    lr: float = param(1e-3, "step size", low=0)
    betas: tuple[float, float] = param((0.9, 0.999), "decay of the two moments", low=0, below=1)
    eps: float = param(1e-8, "added to the root of the second moment", low=0)
    weight_decay: float = param(0.0, "decay added to the gradient", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), t, m, v = self.betas, state["step"], state["m"], state["v"]
        # equivalent: drop else: without decay, adding 0 · p changes nothing; leaving it out saves a pass
        g = grad.add(p, alpha=self.weight_decay) if self.weight_decay else grad
        m.lerp_(g, 1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        root = v.sqrt().div_((1 - b2**t) ** 0.5).add_(self.eps)
        p.addcdiv_(m, root, value=-self.lr / (1 - b1**t))

    def fused(self, params: list[Tensor], grads: list[Tensor], states: list[State], steps: list[Tensor]) -> None:
        (b1, b2), m, v = self.betas, [state["m"] for state in states], [state["v"] for state in states]
        torch._fused_adam_(
            *(params, grads, m, v, [], steps),
            lr=self.lr,
            beta1=b1,
            beta2=b2,
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )


@dataclass(frozen=True, kw_only=True)
class AdaMax(Rule):
    """Adam with the running maximum of |g| in place of the second moment (Algorithm 2)."""

    lr: float = param(2e-3, "step size", low=0)
    betas: tuple[float, float] = param((0.9, 0.999), "decay of the mean and of the maximum", low=0, below=1)
    eps: float = param(1e-8, "added to |g|", low=0)
    weight_decay: float = param(0.0, "decay added to the gradient", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p), "u": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), t, m, u = self.betas, state["step"], state["m"], state["u"]
        # equivalent: drop else: without decay, adding 0 · p changes nothing; leaving it out saves a pass
        g = grad.add(p, alpha=self.weight_decay) if self.weight_decay else grad
        m.lerp_(g, 1 - b1)
        torch.maximum(u.mul_(b2), g.abs().add_(self.eps), out=u)  # Differs: the paper has no ε; torch adds it here
        p.addcdiv_(m, u, value=-self.lr / (1 - b1**t))


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"adam": Adam, "adamax": AdaMax}
