"""AdamP and SGDP: drop the part of a step that only grows the norm of a scale-invariant weight.

Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.arithmetic import length
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdamP(Rule):
    """Adam whose step is projected onto the tangent space of the weight's sphere (Algorithm 2)."""

    view = "rows"

    lr: float = param(1e-3, "step size", low=0)
    betas: tuple[float, float] = param((0.9, 0.999), "decay of the two moments", low=0, below=1)
    eps: float = param(1e-8, "added to roots and norms", low=0)
    weight_decay: float = param(0.0, "decoupled decay, multiplied by lr", low=0)
    delta: float = param(0.1, "cosine, times √I, under which a weight counts as scale-invariant", low=0)
    wd_ratio: float = param(0.1, "share of the decay kept on scale-invariant weights", low=0, high=1)
    nesterov: bool = param(False, "look one gradient ahead")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), t, m, v = self.betas, state["step"], state["m"], state["v"]
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        ahead = m.lerp(grad, 1 - b1) if self.nesterov else m
        d = ahead / v.sqrt().div_((1 - b2**t) ** 0.5).add_(self.eps)
        descend(p, grad, d, self, lr=self.lr / (1 - b1**t), decay=self.lr * self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class SGDP(Rule):
    """SGD with momentum whose step is projected likewise (Algorithm 1)."""

    view = "rows"

    lr: float = param(0.1, "step size", low=0)
    momentum: float = param(0.0, "share of the last step that is kept", low=0, below=1)
    dampening: float = param(0.0, "share of the gradient kept out of the momentum", high=1)
    weight_decay: float = param(0.0, "decoupled decay, multiplied by lr / (1 - momentum)", low=0)
    nesterov: bool = param(False, "look one momentum step ahead")
    eps: float = param(1e-8, "added to norms", low=0)
    delta: float = param(0.1, "cosine, times √I, under which a weight counts as scale-invariant", low=0)
    wd_ratio: float = param(0.1, "share of the decay kept on scale-invariant weights", low=0, high=1)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"buf": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        mu, buf = self.momentum, state["buf"]
        buf.mul_(mu).add_(grad, alpha=1 - self.dampening)
        d = grad.add(buf, alpha=mu) if self.nesterov else buf
        d = descend(p, grad, d, self, lr=self.lr, decay=self.lr * self.weight_decay / (1 - mu))
        if not self.nesterov:
            buf.copy_(d)  # Differs: the authors' package keeps the projected step as its momentum; the paper does not


def descend(p: Tensor, grad: Tensor, d: Tensor, rule: AdamP | SGDP, *, lr: float, decay: float) -> Tensor:
    """Decay ``p`` (O, I) and move it along -d, projected where ``p`` looks scale-invariant; returns the d used."""
    if p.ndim < 2:  # biases and gains are never projected and decay in full
        p.mul_(1 - decay).sub_(d, alpha=lr)
        return d
    radial, invariant = project(p, grad, d, rule.delta, rule.eps)
    d = d.addcmul(radial, p, value=-1)
    p.mul_(1 - decay * (1 - invariant * (1 - rule.wd_ratio))).sub_(d, alpha=lr)
    return d


def project(w: Tensor, g: Tensor, d: Tensor, delta: float, eps: float) -> tuple[Tensor, Tensor]:
    """How much of w to take out of d, (O, 1), and whether w is scale-invariant, () of 0 or 1; w, g, d (O, I).

    Eq. 8 asks for |cos(w, g)| < δ / √dim, first by row, then for the whole tensor; eq. 7 is d - (ŵ·d) ŵ.
    """
    wg, wd = ((w * x).sum(1, keepdim=True) for x in (g, d))  # (O, 1) each, as the next
    norms, slopes = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (w, g))
    rows, columns = length(w, 0), length(w, 1)
    norm, slope = torch.linalg.vector_norm(norms), torch.linalg.vector_norm(slopes)
    cosines = wg.abs() / (norms.clamp(min=eps) * slopes.clamp(min=eps))
    cosine = wg.sum().abs() / (norm.clamp(min=eps) * slope.clamp(min=eps))
    by_row = cosines.max() * columns.sqrt() < delta
    by_layer = cosine * (rows * columns).sqrt() < delta
    row, layer = wd / (norms + eps).square(), wd.sum() / (norm + eps).square()
    radial = torch.where(by_row, row, torch.where(by_layer, layer, 0.0))
    return radial, (by_row | by_layer).to(w.dtype)


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"adamp": AdamP, "sgdp": SGDP}
