"""Lion and Lion-K: steps of a shape given by a convex function K, which keep the decayed weights inside a ball.

Liu et al., "Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts", ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Lion(Rule):
    """Step by the sign of a look-ahead momentum: Lion-K with K = ‖·‖₁, whose weights end in |w| ≤ 1 / weight_decay."""

    traits = ("gradient_scale",)

    lr: float = param(1e-4, "step size; 3 to 10 times smaller than AdamW's", low=0)
    betas: tuple[float, float] = param((0.9, 0.99), "decay within the step, and of the momentum", low=0, high=1)
    weight_decay: float = param(0.0, "decoupled decay, multiplied by lr", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), m = self.betas, state["m"]
        c = m.lerp(grad, 1 - b1)
        p.mul_(1 - self.lr * self.weight_decay).sub_(c.sign_(), alpha=self.lr)
        m.lerp_(grad, 1 - b2)


@dataclass(frozen=True, kw_only=True)
class LionK(Rule):
    """Lion with another K: minimises f(w) + K*(λ w) / λ, λ the decay (eq. 3 and 4, table 2)."""

    traits = ("gradient_scale",)
    view = "tensor"

    lr: float = param(1e-4, "step size", low=0)
    betas: tuple[float, float] = param((0.9, 0.99), "decay within the step, and of the momentum", low=0, high=1)
    weight_decay: float = param(1.0, "λ: decoupled decay, multiplied by lr; 1/λ is the radius of the ball", low=0)
    kappa: Literal["l1", "l2", "group_l2", "lp", "top_k", "soft", "huber", "square"] = param("l1", "which K")
    p: float = param(2.0, "exponent of lp", above=1)
    k: float = param(0.1, "share of a tensor's entries that top_k moves, rounded, at least one", above=0, high=1)
    e: float = param(1e-3, "dead zone of soft, width of huber", above=0)
    eps: float = param(1e-12, "added to norms", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), m = self.betas, state["m"]
        c = m.lerp(grad, 1 - b1)
        p.mul_(1 - self.lr * self.weight_decay).sub_(self.slope(c), alpha=self.lr)
        m.lerp_(grad, 1 - b2)

    def slope(self, c: Tensor) -> Tensor:
        """∇K(c), a subgradient; the groups of ``group_l2`` are the slices c[i], of a vector its entries."""
        match self.kappa:
            case "l1":
                return c.sign()
            case "l2":
                return c / (c.square().sum().sqrt() + self.eps)
            case "group_l2":
                axes = tuple(range(1, c.ndim))
                return c / (c.square().sum(axes, keepdim=True).sqrt() + self.eps) if axes else c / (c.abs() + self.eps)
            case "lp":
                top = (
                    c.abs().max().clamp(min=torch.finfo(c.dtype).tiny)
                )  # out of the powers: small ones would underflow
                norm = top * (c.abs() / top).pow(self.p).sum().pow(1 / self.p)
                return c.sign() * (c.abs() / (norm + self.eps)).pow(self.p - 1)
            case "top_k":
                kept = max(1, round(self.k * c.numel()))
                return torch.where(c.abs() >= c.abs().flatten().topk(kept).values[-1], c.sign(), 0.0)
            case "soft":
                return torch.where(c.abs() > self.e, c.sign(), 0.0)
            case "huber":
                return (c / self.e).clamp(-1, 1)
            case "square":
                return c


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"lion": Lion, "lion_k": LionK}
