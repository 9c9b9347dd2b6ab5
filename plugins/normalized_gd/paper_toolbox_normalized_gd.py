"""Gradient descent scaled by the norm of the whole gradient, and SPIDER with normalized steps.

Chen et al., "Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth Nonconvex Optimization", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit import vector
from paper_toolbox.kit.passes import repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BetaGD(Whole):
    """w ← w - γ ∇f / |∇f|^β, the norm over all tensors together (Algorithm 1)."""

    traits = ("gradient_scale",)

    lr: float = param(1e-2, "step size γ", low=0, search=(1e-4, 1.0))
    beta: float = param(1.0, "power of the norm: 0 is gradient descent, 1 a step of length γ", low=0, high=1)
    eps: float = param(1e-12, "a gradient of at most this norm is taken for 0", low=0)

    def step(self, run: WholeOptimizer, closure: None) -> None:
        places = run.tensors()
        norm = vector.norm([place.grad for place in places])
        for place in places:
            at = place.at
            vector.add([place.p], [place.grad], -at.lr * scale(norm, at.beta, at.eps))


@dataclass(frozen=True, kw_only=True)
class NormalizedSpider(Whole):
    """SPIDER: v follows the gradient by differences on one batch; steps of length γ along it (Algorithm 2)."""

    traits = ("gradient_scale",)
    closure = "gradient"

    lr: float = param(1e-2, "step size γ: the length of a step", low=0, search=(1e-4, 1.0))
    period: int = param(32, "steps from one fresh gradient to the next, q", low=1, search=(4, 256))
    eps: float = param(1e-12, "an estimate of at most this norm is taken for 0", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"v": torch.empty_like(widen(p)), "before": p.clone()}  # the first step fills v

    def step(self, run: WholeOptimizer, closure: Callable[[], Any]) -> Any:
        """``closure`` runs at w, and again at the weights before it: the same batch, the same dropout."""
        closure = repeatable(torch.enable_grad()(closure), run.trained, run.model)
        loss = closure()
        places = run.tensors()
        followed = [bool((place.state["step"] - 1) % place.at.period) for place in places]
        grads = [place.grad.clone() for place in places]  # the second run puts others in their place
        olds = self.grads_before(places, closure) if any(followed) else grads
        for place, follow, g, old in zip(places, followed, grads, olds, strict=True):
            v = place.state["v"]
            v.add_(widen(g) - old) if follow else v.copy_(g)
            place.state["before"].copy_(place.p)
        norm = vector.norm([place.state["v"] for place in places])
        for place in places:
            vector.add([place.p], [place.state["v"]], -place.at.lr * scale(norm, 1.0, place.at.eps))
        return loss

    def grads_before(self, places: list[Place], closure: Callable[[], Any]) -> list[Tensor]:
        """∇f of the batch of ``closure`` at the weights before the last step."""
        swap(places)
        try:
            closure()
        finally:
            swap(places)
        return [torch.zeros_like(place.p) if place.p.grad is None else place.p.grad for place in places]


def swap(places: list[Place]) -> None:
    """The weights and those before the last step change places; there is no room for a third copy of them."""
    for place in places:
        now = place.p.clone()
        place.p.copy_(place.state["before"])
        place.state["before"].copy_(now)


def scale(norm: Tensor, beta: float, eps: float) -> Tensor:
    """norm^-β, or 0 where the norm is at most ``eps``; ()."""
    return torch.where(norm > eps, norm.pow(-beta), 0)


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"normalized_gd": BetaGD, "normalized_spider": NormalizedSpider}
