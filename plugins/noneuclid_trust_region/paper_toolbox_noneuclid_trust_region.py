"""Steps of a fixed length in a norm made for matrices: the trust regions behind Muon, and Muon itself.

Kovalev, "Understanding Gradient Orthogonalization for Deep Learning via Non-Euclidean Trust-Region Optimization", 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.matrices import MatrixRule
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor, nn

A, B, C = 3.4445, -4.7750, 2.0315  # of Muon's quintic polynomial, which lifts small singular values fastest
SCALE = "a matrix (O, I) steps this much further: none, aspect √max(1, O/I), adamw 0.2 √max(O, I)"
STEPS = "Newton-Schulz steps; 0: exact, by a singular value decomposition"
HALF = "Newton-Schulz in bfloat16, fast on a GPU; else in the tensor's dtype"


@dataclass(frozen=True, kw_only=True)
class TrustRegion(MatrixRule):
    """To the point of a ball around the weights that the momentum likes best, each tensor in its own (Algorithm 1).

    A spectral ball takes matrices and leaves the other tensors to ``rest``; the other two take every tensor.
    """

    traits = ("gradient_scale",)
    view = "tensor"  # the l2 norm is that of a whole tensor
    lr: float = param(2e-2, "radius of the ball", low=0, search=(1e-4, 1.0))
    alpha: float = param(0.05, "share of the newest gradient in the momentum", above=0, high=1, search=(1e-2, 1.0))
    norm: Literal["spectral", "sign", "l2"] = param("spectral", "of the ball; sign: the largest entry")
    weight_decay: float = param(0.0, "decoupled decay, multiplied by lr", low=0)
    scale: Literal["none", "aspect", "adamw"] = param("none", SCALE)
    ns_steps: int = param(5, STEPS, low=0)
    bfloat16: bool = param(False, HALF)
    eps: float = param(1e-7, "added to the norm that a tensor is divided by", above=0)

    def takes(self, model: nn.Module | None) -> Callable[[Tensor], bool]:
        return super().takes(model) if self.norm == "spectral" else lambda p: True

    def init(self, p: Tensor) -> dict[str, Tensor]:
        # equivalent: zeros_like → ones_like: the first step keeps nothing of it
        return {"m": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        m = state["m"].lerp_(grad, 1.0 if state["step"] == 1 else self.alpha)  # m₀ = g(x₀)
        p.mul_(1 - self.lr * self.weight_decay)
        p.sub_(self.direction(m), alpha=self.lr * factor(p, self.scale))

    def direction(self, m: Tensor) -> Tensor:
        """argmax ⟨m, u⟩ over ‖u‖ ≤ 1 (eq. 3)."""
        if self.norm == "sign":
            return m.sign()
        if self.norm == "l2" or m.ndim < 2:  # which is also the spectral norm of a vector
            return unit(m, self.eps).to(m.dtype)
        return polar(m.flatten(1), self.ns_steps, self.eps, self.bfloat16).view_as(m)


@dataclass(frozen=True, kw_only=True)
class Muon(MatrixRule):
    """Nesterov momentum, every matrix of it replaced by the nearest one whose singular values are all 1."""

    traits = ("gradient_scale",)
    lr: float = param(2e-2, "step size: the spectral norm of a step, before scale", low=0, search=(1e-3, 1.0))
    momentum: float = param(0.95, "decay of the momentum", low=0, below=1, search=(0.5, 0.99))
    nesterov: bool = param(True, "mix the newest gradient in once more")
    weight_decay: float = param(0.0, "decoupled decay, multiplied by lr", low=0)
    scale: Literal["none", "aspect", "adamw"] = param("aspect", SCALE)
    ns_steps: int = param(5, STEPS, low=0)
    bfloat16: bool = param(False, HALF)
    eps: float = param(1e-7, "added to the norm that a matrix is divided by", above=0)
    rest: str = param("adamw?lr=3e-4&betas=0.9,0.95&weight_decay=0", "the optimizer of all other tensors")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        m = state["m"]
        m.lerp_(grad, 1 - self.momentum)
        u = grad.lerp(m, self.momentum) if self.nesterov else m
        p.mul_(1 - self.lr * self.weight_decay)
        p.sub_(polar(u, self.ns_steps, self.eps, self.bfloat16), alpha=self.lr * factor(p, self.scale))


def factor(p: Tensor, scale: str) -> float:
    """How much further a matrix (O, I) steps, I all axes but the first."""
    if scale == "none" or p.ndim < 2:
        return 1.0
    rows, columns = p.shape[0], p.shape[1:].numel()
    return math.sqrt(max(1, rows / columns)) if scale == "aspect" else 0.2 * math.sqrt(max(rows, columns))


def unit(m: Tensor, eps: float) -> Tensor:
    """m / (‖m‖₂ + eps), in float32 at least: a squared norm would leave the range of fp16."""
    wide = m.to(torch.promote_types(m.dtype, torch.float32))
    return wide.div(torch.linalg.vector_norm(wide) + eps)


def polar(m: Tensor, steps: int, eps: float, half: bool) -> Tensor:
    """m (O, I) = U S Vᵀ -> U Vᵀ: exact, or singular values of 0.7 to 1.2 after a few Newton-Schulz steps."""
    if steps == 0:
        u, s, vt = torch.linalg.svd(m.to(torch.promote_types(m.dtype, torch.float32)), full_matrices=False)
        kept = s > 1e-6 * s[0]  # the others are rounding: of a lower rank, U Vᵀ has that rank too
        return torch.matmul(u * kept, vt).to(m.dtype)
    tall = m.shape[0] > m.shape[1]
    x = unit(m.mT if tall else m, eps).to(torch.bfloat16 if half else m.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return (x.mT if tall else x).to(m.dtype)


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"noneuclid_trust_region": TrustRegion, "muon": Muon}
