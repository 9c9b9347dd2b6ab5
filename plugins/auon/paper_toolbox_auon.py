"""AuON: momentum slowed down by a hyperbolic cosine of itself, alone or behind a Newton-Schulz step.

Maity, "AuON: A Linear-time Alternative to Semi-Orthogonal Momentum Updates", 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.matrices import MatrixRule
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor

A, B, C = 3.4445, -4.7750, 2.0315  # of Muon's quintic polynomial


@dataclass(frozen=True, kw_only=True)
class AuON(MatrixRule):
    """A matrix steps by its look-ahead momentum, divided by the root mean square of cosh of its scaled entries."""

    traits = ("gradient_scale",)

    lr: float = param(0.24, "step size", low=0, search=(1e-3, 1.0))
    momentum: float = param(0.95, "decay of the momentum", low=0, below=1, search=(0.5, 0.99))
    gamma: float = param(1.5, "length of the momentum inside cosh; 0: no brake", low=0, high=20, search=(0.1, 10))
    weight_decay: float = param(0.0, "decoupled decay, multiplied by lr", low=0)
    eps_norm: float = param(1e-7, "added to the norm of the momentum", above=0)
    eps: float = param(1e-8, "added to the brake", low=0)
    rest: str = param("adamw?lr=8e-3&betas=0.8,0.95", "the optimizer of all other tensors")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        mu, m = self.momentum, state["m"]
        p.mul_(1 - self.lr * self.weight_decay)
        m.lerp_(grad, 1 - mu)
        g = self.shaped(grad.lerp(m, mu))
        r = unit(g, self.eps_norm).mul_(self.gamma).cosh_().square_().mean().sqrt_()
        p.addcdiv_(g, r + self.eps, value=-self.lr)

    def shaped(self, g: Tensor) -> Tensor:
        """The momentum itself."""
        return g


@dataclass(frozen=True, kw_only=True)
class HybridAuON(AuON):
    """The momentum first comes nearer to a matrix whose singular values are all equal."""

    ns_steps: int = param(1, "Newton-Schulz steps; the authors' code takes 5", low=1)

    def shaped(self, g: Tensor) -> Tensor:
        """g (O, I), its singular values divided by the root of their sum of squares and lifted by the polynomial."""
        tall = g.shape[0] > g.shape[1]
        x = unit(g.mT if tall else g, self.eps_norm).to(g.dtype)
        for _ in range(self.ns_steps):
            gram = x @ x.mT
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
        return x.mT if tall else x


def unit(g: Tensor, eps: float) -> Tensor:
    """g / (‖g‖_F + eps), in float32 at least: a squared norm would leave the range of fp16."""
    wide = g.to(torch.promote_types(g.dtype, torch.float32))
    return wide.div(torch.linalg.vector_norm(wide) + eps)


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"auon": AuON, "hybrid_auon": HybridAuON}
