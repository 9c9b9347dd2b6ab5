"""OPT-AMSGrad: AMSGrad that steps ahead with a guess of the next gradient.

Wang, Li, Karimi & Li, "An Optimistic Acceleration of AMSGrad for Nonconvex Optimization", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OptAMSGrad(Rule):
    """An auxiliary weight follows AMSGrad; gradients are taken one guessed step ahead of it (Algorithm 2)."""

    traits = ("own_weights",)
    view = "tensor"  # a guess is made from the inner products of a whole tensor's gradients

    lr: float = param(1e-3, "step size", low=0, search=(1e-5, 1e-1))
    betas: tuple[float, float] = param((0.9, 0.99), "decay of the two moments", low=0, below=1)
    predictor: Literal["extrapolation", "last"] = param("extrapolation", "what guesses the next gradient")
    span: int = param(5, "differences of gradients to extrapolate from; as many gradients are kept", low=1)
    lam: float = param(1e-4, "regularization of the extrapolation", above=0, search=(1e-8, 1e-1))
    eps: float = param(1e-8, "start of the second moment, and added to it under the root", above=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        state = {"aux": p.clone(), "theta": torch.zeros_like(p), "m": torch.zeros_like(p)}
        if self.predictor == "extrapolation":
            # equivalent: zeros_like → ones_like: none is looked at before a gradient has taken its place
            state |= {f"g{i}": torch.zeros_like(p) for i in range(self.span)}  # the latest gradients, oldest first
        return state | {"v": torch.full_like(p, self.eps), "top": torch.full_like(p, self.eps)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), aux, theta, m, v = self.betas, state["aux"], state["theta"], state["m"], state["v"]
        theta.lerp_(grad, 1 - b1)
        surprise = grad - m
        v.mul_(b2).addcmul_(surprise, surprise, value=1 - b2)
        state["top"].copy_(torch.maximum(state["top"], v))
        root = state["top"].to(wide(p)).add(self.eps).sqrt()
        aux.sub_(theta / root, alpha=self.lr)
        m.copy_(self.guess(grad, state))
        h = theta.lerp(m, 1 - b1)
        p.copy_(aux - self.lr * (h / root))

    def guess(self, grad: Tensor, state: State) -> Tensor:
        """The next gradient; the newest while too few are known, or where the equations have no finite solution."""
        if self.predictor == "last":
            return grad
        known = [state[f"g{i}"] for i in range(self.span)]
        moves = torch.stack([*known[1:], grad]).to(wide(grad))
        for i, old in enumerate(known):
            moves[i].sub_(old)
        for old, new in zip(known, [*known[1:], grad], strict=True):
            old.copy_(new)
        if state["step"] <= self.span:
            return grad
        found = extrapolated(moves.flatten(1), grad.flatten(), self.lam).view_as(grad)
        return torch.where(found.isfinite(), found, grad)


def wide(x: Tensor) -> torch.dtype:
    """float32 at least: squares would leave the range of fp16."""
    return torch.promote_types(x.dtype, torch.float32)


def extrapolated(moves: Tensor, last: Tensor, lam: float) -> Tensor:
    """Where a sequence leads, (N,), whose last ``moves`` (r, N) ended at ``last`` (N,).

    Regularized minimal polynomial extrapolation: Σ cᵢ xᵢ, Σ cᵢ = 1, over the points xᵢ that the moves U came to, with
    c ~ (UᵀU / ‖UᵀU‖₂ + λ)⁻¹ 1 (Algorithm 3).
    """
    gram = moves @ moves.T
    gram = gram / torch.linalg.matrix_norm(gram, 2)
    ones = torch.ones_like(gram[0])
    z, _ = torch.linalg.solve_ex(gram + lam * ones.diag(), ones[:, None])
    c = (z / z.sum())[:, 0]
    found: Tensor = last - (c.cumsum(0) - c) @ moves  # each point is the last one less the moves behind it
    return found


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"opt_amsgrad": OptAMSGrad}
