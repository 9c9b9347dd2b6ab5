"""Ranger21: AdamW joined with clipping, centralisation, two momentums, norm loss, lookahead and a schedule.

Wright & Demeure, "Ranger21: a synergistic deep learning optimizer", 2021, arXiv:2106.13731.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor

NORM_LOSS = 1e-4  # of the package: its own factor, apart from weight_decay


@dataclass(frozen=True, kw_only=True)
class Ranger21(Whole):
    """Algorithm 1 (``paper``), or what the public packages compute under the name (``package``)."""

    traits = ("gradient_scale",)
    scheduled = True
    lr: float = param(1e-3, "peak of the step size η", low=0, search=(1e-4, 1e-1))
    beta0: float = param(0.9, "how far the newer momentum counts beyond the older one", low=0, below=1)
    betas: tuple[float, float] = param((0.9, 0.999), "decay of momentum and of squares", low=0, below=1)
    eps: float = param(1e-8, "added to the root", low=0)
    weight_decay: float = param(1e-4, "λ of stable decay, with the norm loss in one", low=0, search=(1e-5, 1e-2))
    agc_clip: float = param(1e-2, "τ: largest ratio of a unit's gradient to its weights", low=0)
    agc_eps: float = param(1e-3, "least norm that a unit's weights count as", low=0)
    lookahead_k: int = param(5, "steps from one merge with the slow weights to the next", low=1)
    lookahead_alpha: float = param(0.5, "how far the slow weights go towards the fast ones", low=0, high=1)
    warmup: float = param(0.22, "share of the steps over which lr rises", low=0, high=1)
    warmdown: float = param(0.28, "share of the steps over which lr falls", above=0, high=1)
    min_lr: float = param(0.0, "where lr ends; the package's is 3e-5", low=0)
    variant: Literal["paper", "package"] = param("paper", "the algorithm printed, or that of the packages")

    def build(self, params: Iterable[Any], *, steps_total: int) -> torch.optim.Optimizer:  # type: ignore[override]  # a must
        built = super().build(params)
        built.param_groups[0].update({"t": 0, "steps_total": steps_total})
        return built

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {x: torch.zeros_like(widen(p)) for x in ("m", "m_before", "v", "v_max")} | {"slow": p.clone()}

    def step(self, run: WholeOptimizer, closure: None) -> None:
        head, places = run.param_groups[0], run.tensors()
        head["t"] += 1
        sums = [place.at.look(place) for place in places]
        together, count = sum(s.to(sums[0]) for s in sums), sum(place.p.numel() for place in places)
        for place in places:
            at, begun = place.at, place.at.variant == "package"  # its sum starts at 1
            size = ((together.to(place.p.device) + begun) / count).sqrt()
            at.move(place, at.lr_at(head["t"], head["steps_total"]), size)
            if head["t"] % at.lookahead_k == 0:
                place.p.copy_(place.state["slow"].lerp_(place.p, at.lookahead_alpha))

    def lr_at(self, t: int, total: int) -> float:
        """Linear up, flat, linear down (section 2, "linear warm-up" and "explore-exploit")."""
        floor, b2 = min(self.min_lr, self.lr), self.betas[1]
        if self.variant == "package":
            rise, start = math.ceil(2 / (1 - b2)), int((1 - self.warmdown) * total)
            rise = int(self.warmup * total) if rise > 0.45 * total else rise
            up, down = t / max(rise, t), 1 - (t + 1 - start) / (total - start + 1)
        else:
            up = max((1 - b2) * t / 2, t / max(self.warmup * total, t))
            down = (total - t) / (self.warmdown * total)
        return min(self.lr, self.lr * up, floor + (self.lr - floor) * max(0.0, down))

    def look(self, place: Place) -> Tensor:
        """Moves the moments; returns the sum of the tensor's squares v̂, ()."""
        (b1, b2), state, package = self.betas, place.state, self.variant == "package"
        g, norm = widen(place.grad), unitwise(widen(place.grad), package)
        bound = self.agc_clip * unitwise(widen(place.p), package).clamp(min=self.agc_eps)
        g = centred(g * torch.where(norm > bound, bound / norm, 1))
        g = normalized(g) if package else g
        state["v"].mul_(b2).addcmul_(g, g, value=1 - b2)
        torch.maximum(state["v_max"], state["v"], out=state["v_max"])
        g = normalized(centred(g)) if package else g  # the package does it once more
        state["m"], state["m_before"] = state["m_before"].lerp_(g, 1 - b1**2), state["m"]
        return torch.div(state["v" if package else "v_max"].sum(), 1 - b2 ** state["step"])

    def move(self, place: Place, lr: float, size: Tensor) -> None:
        """One step against u and the decay; ``size`` is √v̄, the root of the mean square of all tensors."""
        (b1, b2), b0, state, package = self.betas, self.beta0, place.state, self.variant == "package"
        m = state["m"].lerp(state["m_before"], -b0)  # (1 + β0) m − β0 m_before
        root = (state["v_max"] / (1 - b2 ** state["step"])).sqrt_().add_(self.eps)
        root = torch.nn.functional.softplus(root, beta=50) if package else root
        decay = torch.where(size > 0, lr * self.weight_decay / size, 0)
        w = widen(place.p).mul_(1 - decay) if package else widen(place.p)
        pull, norm = 2 * lr * NORM_LOSS if package else decay, unitwise(w, package)
        w.mul_(1 - pull + pull / (norm + (self.eps if package else norm == 0)))  # units of 0 stay
        w.addcdiv_(m, root, value=-lr / (1 - b1 ** state["step"]) / math.hypot(1 + b0, b0))
        place.p.copy_(w)  # itself, unless p is of half precision


def unitwise(x: Tensor, package: bool) -> Tensor:
    """‖x‖ of each output unit, (O, 1, ...), or of a vector; the package takes (A, B, C) along B alone."""
    axes = (1,) if package and x.ndim == 3 else tuple(range(1, x.ndim)) or None
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True)
    return norm


def centred(g: Tensor) -> Tensor:
    """g, in place, less the mean of each output unit, where units are more than numbers."""
    return g.sub_(g.mean(tuple(range(1, g.ndim)), keepdim=True)) if g.ndim > 1 else g


def normalized(g: Tensor) -> Tensor:
    """g, in place, over its standard deviation; of one or two numbers none is taken."""
    return g.div_(g.std() + 1e-8) if g.numel() > 2 else g


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"ranger21": Ranger21}
