"""Clipping as a running estimate of the median gradient.

Schaipp et al., "SGD with Clipping is Secretly Estimating the Median Gradient", 2024, arXiv:2402.12828.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit import vector
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MedianClip(Whole):
    """m ← argmin D(m - g) + |m - m before|² / (2τ), a proximal step on the median of gradients; w ← w - η m.

    D is ‖·‖₂ (``vclip``: geometric median), ‖·‖₁ (``cclip``: componentwise), Huber's, or ‖·‖²/2 (``mean``).
    """

    traits = ("gradient_scale",)

    lr: float = param(1e-2, "step size η", low=0, search=(1e-4, 1.0))
    tau: float = param(1.0, "step of the estimate: how far m may move towards a gradient", above=0, search=(1e-2, 10))
    mode: Literal["vclip", "cclip", "huber", "mean"] = param("vclip", "whose median: the distance D")
    mu: float = param(0.0, "mode huber: distances below it count as squares", low=0)
    scope: Literal["global", "tensor"] = param("global", "norms over all tensors together, or of each tensor")
    weight_decay: float = param(0.0, "decay, apart from the gradient and times lr", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p)}

    def step(self, run: WholeOptimizer, closure: None) -> None:
        places = run.tensors()
        norms = [vector.norm([gap(place)]) for place in places]
        together = vector.norm(norms)
        for place, norm in zip(places, norms, strict=True):
            at, m, d = place.at, place.state["m"], gap(place)  # made twice: it is as large as the model
            m.add_(at.towards(d, norm if at.scope == "tensor" else together.to(d)))
            place.p.mul_(1 - at.lr * at.weight_decay).sub_(m, alpha=at.lr)

    def towards(self, d: Tensor, norm: Tensor) -> Tensor:
        """How far m moves for a gradient at distance ``d``, in its place; ``norm`` is that of its scope."""
        if self.mode == "cclip":
            return d.clamp_(-self.tau, self.tau)
        if self.mode == "mean":
            return d.mul_(self.tau / (1 + self.tau))
        mu = self.mu if self.mode == "huber" else 0.0
        return d.mul_((self.tau / norm).clamp(max=self.tau / (self.tau + mu)))


def gap(place: Place) -> Tensor:
    """g - m."""
    found: Tensor = widen(place.grad) - place.state["m"]
    return found


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"median_clip_sgd": MedianClip}
