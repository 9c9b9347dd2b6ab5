"""CBO: particles that drift to their consensus, where the loss is low, and need no gradient.

Riedl et al., "Gradient is All You Need?", 2023, arXiv:2306.09778.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.memory import afford
from paper_toolbox.kit.passes import kept, repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class CBO(Whole):
    """The mean of N particles, weighted by exp(-α loss), draws them near; noise grows with their distance from it."""

    closure = "loss"

    mode: Literal["anisotropic", "isotropic", "hopping"] = param(
        "anisotropic", "noise by the distance in each coordinate, by the whole distance; hopping: particles drawn anew"
    )
    particles: int = param(64, "N, one forward pass each", low=2)
    alpha: float = param(50.0, "α: how much a lower loss weighs", above=0, search=(1.0, 1e4))
    drift: float = param(1.0, "λ: pull towards the consensus", low=0)
    sigma: float = param(0.5, "σ: noise", low=0, search=(0.05, 5.0))
    dt: float = param(0.1, "length of a step in time", above=0)
    s0: float = param(0.1, "spread of the particles around the first weights", above=0)
    s: float = param(0.05, "spread of hopping's samples; its step size is α s²", above=0, search=(1e-3, 1.0))
    cooling: bool = param(False, "each epoch doubles α, up to alpha_max, and divides σ by log₂(epoch + 2)")
    alpha_max: float = param(1e5, "where cooling leaves α", above=0)

    def build(
        self, params: Any, *, model: nn.Module | None = None, steps_per_epoch: int | None = None
    ) -> WholeOptimizer:
        """Refused where the particles do not fit; ``model`` keeps its buffers in passes of particles."""
        run = WholeOptimizer(self, params, model)
        run.param_groups[0]["epoch_steps"] = steps_per_epoch if self.cooling else None
        for device in {p.device for p in run.trained}:
            sizes = [p.numel() * widen(p).element_size() for p in run.trained]
            afford(
                "cbo.particles", self.particles, sum(sizes) + 3 * max(sizes), device
            )  # distances, noise and their product
        return run

    def init(self, p: Tensor) -> dict[str, Tensor]:
        """``x`` (N, *p.shape): the particles."""
        return {} if self.mode == "hopping" else {"x": self.around(p, self.s0)}

    def around(self, p: Tensor, spread: float) -> Tensor:
        """N points of N(p, spread² I)."""
        wide = widen(p)
        return wide + spread * torch.randn(self.particles, *p.shape, dtype=wide.dtype, device=p.device)

    def step(self, run: WholeOptimizer, closure: Callable[[], Tensor]) -> Tensor:
        """N + 1 passes on the same batch, with the same dropout; returns the loss of the weights before the step."""
        places = run.tensors(run.trained)
        hopping = self.mode == "hopping"
        points = [self.around(place.p, place.at.s) if hopping else place.state["x"] for place in places]
        loss = repeatable(lambda: widen(closure()), run.trained, run.model)
        base = loss()
        losses = losses_at([place.p for place in places], points, loss)
        steps, made = run.param_groups[0]["epoch_steps"], places[0].state["step"] - 1
        epoch = made // steps if steps else 0
        alpha = 2 ** min(math.log2(self.alpha) + epoch, math.log2(max(self.alpha, self.alpha_max)))
        weights = (-alpha * (losses - losses.min())).softmax(0)
        consensus = [torch.tensordot(weights.to(x), x, 1) for x in points]
        for place, centre in zip(places, consensus, strict=True):
            place.p.copy_(centre)
        if not hopping:
            self.move(places, consensus, 1 / math.log2(epoch + 2))
        return base

    def move(self, places: list[Place], consensus: list[Tensor], cooled: float) -> None:
        """xᵢ ← xᵢ - λ Δt (xᵢ - x̄) + σ √Δt D(xᵢ - x̄) ξ, with D the numbers themselves or their norm over all tensors."""
        pairs = [(place.state["x"], centre) for place, centre in zip(places, consensus, strict=True)]
        norms = sum((x - centre).square().reshape(len(x), -1).sum(1) for x, centre in pairs).sqrt()  # (N,)
        for place, (x, centre) in zip(places, pairs, strict=True):
            at, away = place.at, x - centre
            size = away if self.mode == "anisotropic" else norms.view(-1, *[1] * centre.ndim)
            x.sub_(away, alpha=at.drift * at.dt)
            noise = torch.randn(x.shape, dtype=x.dtype, device=x.device)
            x.add_(size * noise, alpha=at.sigma * cooled * at.dt**0.5)


def losses_at(tensors: list[Tensor], points: list[Tensor], loss: Callable[[], Tensor]) -> Tensor:
    """The loss where ``tensors`` are each of ``points`` (N, ...); infinite where it is no number. -> (N,)"""
    found = []
    with kept(tensors):
        for point in zip(*points, strict=True):
            for p, x in zip(tensors, point, strict=True):
                p.copy_(x)
            found.append(loss())
    return torch.stack(found).nan_to_num(nan=math.inf, posinf=math.inf)


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"cbo": CBO}
