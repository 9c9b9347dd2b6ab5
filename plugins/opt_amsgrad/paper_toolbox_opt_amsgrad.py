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
    span: int = param(5, "differences of gradients to extrapolate from; as many tensors are kept", low=1)
    lam: float = param(1e-4, "regularization of the extrapolation", above=0, search=(1e-8, 1e-1))
    eps: float = param(1e-8, "start of the second moment, and added to it under the root", above=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        state = {"aux": p.clone(), "theta": torch.zeros_like(p), "m": torch.zeros_like(p)}
        if self.predictor == "extrapolation":  # the newest gradient, and the latest moves to it, oldest first
            # equivalent: zeros_like → ones_like: none is looked at before a gradient or a move has taken its place
            state |= {"g": torch.zeros_like(p)}
            # equivalent: zeros_like → ones_like: ditto
            state |= {f"u{i}": torch.zeros_like(p, dtype=wide(p)) for i in range(1, self.span)}
        return state | {"v": torch.full_like(p, self.eps), "top": torch.full_like(p, self.eps)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), aux, theta, m, v = self.betas, state["aux"], state["theta"], state["m"], state["v"]
        theta.lerp_(grad, 1 - b1)
        surprise = m.sub_(grad)  # but for its sign, which the square does not see; m is made anew below
        v.mul_(b2).addcmul_(surprise, surprise, value=1 - b2)
        state["top"].clamp_(min=v)
        m.copy_(self.guess(grad, state))
        root = state["top"].to(wide(p)).add(self.eps).sqrt_()
        aux.addcdiv_(theta, root, value=-self.lr)
        h = theta.lerp(m, 1 - b1)
        p.copy_(aux).addcdiv_(h, root, value=-self.lr)

    def guess(self, grad: Tensor, state: State) -> Tensor:
        """The next gradient; the newest while too few are known, or where the equations have no finite solution."""
        if self.predictor == "last":
            return grad
        u = [*(state[f"u{i}"] for i in range(1, self.span)), grad.to(wide(grad)) - state["g"]]
        found = extrapolated(u, grad, self.lam) if state["step"] > self.span else grad
        for old, new in zip([state["g"], *u], [grad, *u[1:]], strict=False):
            old.copy_(new)
        return found


def wide(x: Tensor) -> torch.dtype:
    """float32 at least: squares would leave the range of fp16."""
    return torch.promote_types(x.dtype, torch.float32)


def extrapolated(u: list[Tensor], last: Tensor, lam: float) -> Tensor:
    """Where a sequence leads whose last r moves ``u`` ended at ``last``; all of one shape.

    Regularized minimal polynomial extrapolation: Σ cᵢ xᵢ, Σ cᵢ = 1, over the points xᵢ that the moves came to, with
    c ~ (UᵀU / ‖UᵀU‖₂ + λ)⁻¹ 1 (Algorithm 3).
    """
    r = range(len(u))
    below = [[torch.dot(x.flatten(), y.flatten()) for y in u[: i + 1]] for i, x in enumerate(u)]
    gram = torch.stack([torch.stack([below[max(i, j)][min(i, j)] for j in r]) for i in r])
    gram = gram / torch.linalg.matrix_norm(gram, 2)
    ones = torch.ones_like(gram[0])
    z, _ = torch.linalg.solve_ex(gram + lam * ones.diag(), ones[:, None])
    c = (z / z.sum())[:, 0]
    # equivalent: sum → mean: one is finite where the other is
    behind = torch.where(c.sum().isfinite(), c.cumsum(0) - c, 0)  # the last point less the moves behind each point
    found = last.to(gram.dtype, copy=True)
    for move, share in zip(u[1:], behind[1:].unbind(), strict=True):
        found.addcmul_(move, share, value=-1)
    return found


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"opt_amsgrad": OptAMSGrad}
