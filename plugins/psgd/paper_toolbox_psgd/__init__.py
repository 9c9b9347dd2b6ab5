"""PSGD: a preconditioner QᵀQ, fitted while training within a Lie group whose members are easily inverted.

Pooladzandi and Li, "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", 2024, arXiv:2402.04553.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import ModelError
from paper_toolbox.kit.grouped import State
from paper_toolbox.kit.memory import afford
from paper_toolbox.kit.vector import joined, parted
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.attention import SDPBackend, sdpa_kernel

from .groups import fit_lra, fit_xmat, precondition


@dataclass(frozen=True, kw_only=True)
class PSGD(Whole):
    """w ← w - η P g with P = QᵀQ, the minimiser of E[hᵀ P h + vᵀ P⁻¹ v]; all tensors are one vector of n numbers."""

    closure = "loss"

    lr: float = param(1e-2, "step size η", low=0, search=(1e-3, 1.0))
    preconditioner: Literal["lra", "xmat"] = param("lra", "Q: (I + U Vᵀ) diag(d), or diag(a) + antidiag(b)")
    rank: int = param(10, "lra: columns of U and of V; 0 leaves the diagonal", low=0)
    fit: Literal["newton", "whitening"] = param("newton", "h: H v, for P near |H|⁻¹; or the gradient, near E[g gᵀ]^-½")
    lr_preconditioner: float = param(0.1, "step size of Q, relative", low=0, high=1, search=(1e-3, 1.0))
    init_scale: float | None = param(None, "Q at first, times I; none: from the first h", above=0)
    update_probability: float = param(1.0, "chance that a step fits Q; the first one does", low=0, high=1)
    momentum: float = param(0.0, "decay of the running mean of gradients", low=0, below=1)
    max_norm: float | None = param(None, "P g is shortened to this norm; none: never", above=0)

    @property
    def traits(self) -> Any:  # type: ignore[override]  # a field decides
        return {"newton": ("second_order",)}.get(self.fit, ())

    def build(self, params: Iterable[Any], *, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Refused if Q would not fit into memory."""
        run = WholeOptimizer(self, params, model)
        if run.trained and self.preconditioner == "lra":
            first = run.trained[0]
            column = sum(p.numel() for p in run.trained) * torch.promote_types(first.dtype, torch.float32).itemsize
            afford("psgd.rank", self.rank, 2 * column, first.device, beside=2 * column)  # U and V; d and m
        return run

    def step(self, run: WholeOptimizer, closure: Callable[[], Tensor]) -> Tensor:
        q = run.common
        # drawn on the CPU, so that no device is waited for
        fits = float(torch.rand(())) < self.update_probability or "m" not in q
        second = fits and self.fit == "newton"
        # attention's fused kernels have no second derivative, its plain formula has
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if second else nullcontext():
            loss = closure()
            grads = torch.autograd.grad(loss, run.trained, create_graph=second, materialize_grads=True)
        places = run.tensors(grads)
        g, at = joined([place.grad for place in places]), places[0].at
        if "m" in q and len(q["m"]) != len(g):
            raise ModelError(f"psgd keeps Q for {len(q['m'])} numbers, and {len(g)} are trained now: build it anew")
        if fits:
            v = torch.randn_like(g)
            h = product(places, v) if second else g + 2**-13 * g.abs().mean() * v
            if "m" not in q:
                q |= self.begin(v, h)
            update = fit_lra if self.preconditioner == "lra" else fit_xmat
            update(q, v, h, at.lr_preconditioner * h.any().to(h.dtype))
        along = precondition(q, q["m"].lerp_(g, 1 - at.momentum))
        if at.max_norm is not None:
            along *= (at.max_norm / vector_norm(along)).clamp(max=1)
        for place, d in zip(places, parted(along, run.trained), strict=True):
            place.p.sub_(d, alpha=place.at.lr)
        return loss.detach()

    def begin(self, v: Tensor, h: Tensor) -> State:
        """Q = s I, but for small U and V; s is such that P h is about as long as v."""
        n, top = len(h), h.abs().amax()
        s = (v.square().mean() / ((h / top) ** 4).mean().sqrt()) ** 0.25 / top.sqrt()
        scale = torch.where(top > 0, s, 1) if self.init_scale is None else self.init_scale
        start = {"m": torch.zeros_like(h)}
        if self.preconditioner == "xmat":
            return start | {"a": torch.ones_like(h) * scale, "b": torch.zeros_like(h)}
        u, w = (torch.randn(n, self.rank, dtype=h.dtype, device=h.device) for _ in range(2))
        small = (n * (self.rank + 10)) ** -0.5
        return start | {"d": torch.ones_like(h) * scale, "U": u * small, "V": w * small}


def product(places: list[Place], v: Tensor) -> Tensor:
    """H v, (n,)."""
    parts = zip(places, parted(v, [place.p for place in places]), strict=True)
    pairs = [(place.grad, z.to(place.grad)) for place, z in parts if place.grad.requires_grad]
    if not pairs:  # a loss linear in the weights
        return torch.zeros_like(v)
    slopes, along = zip(*pairs, strict=True)
    return joined(torch.autograd.grad(slopes, [place.p for place in places], along, materialize_grads=True))


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"psgd": PSGD}
