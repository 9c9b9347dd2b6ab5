"""ZOODiP: Adam without backpropagation, its noise projected out by the history of the weights.

Seo et al., "Efficient Personalization of Quantized Diffusion Model without Backpropagation", CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.memory import afford
from paper_toolbox.kit.passes import moved, repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ZOODiP(Whole):
    """Adam on n finite differences along random z, less the directions in which w has hardly moved (Algorithm 1)."""

    traits = ("differences",)
    closure = "loss"

    lr: float = param(0.01, "step size", low=0, search=(1e-4, 0.1))
    n: int = param(2, "random directions a step, one forward pass each", low=1)
    mu: float = param(1e-3, "length of a finite difference", above=0)
    tau: int = param(128, "points kept; as many steps lie between two analyses of them", low=2)
    nu: float = param(1e-3, "share of variance whose directions are removed", above=0, below=1, search=(1e-4, 0.1))
    betas: tuple[float, float] = param((0.9, 0.999), "decay of the two moments", low=0, below=1)
    eps: float = param(1e-3, "added to the root", low=0)

    def build(self, params: Iterable[Any], *, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Refused where the ``tau`` points do not fit into memory; ``model`` keeps its buffers in passes beside w."""
        run = WholeOptimizer(self, params, model)
        each = 5 * 8 * sum(p.numel() for p in run.trained)  # float64, while analysed
        afford("zoodip.tau", self.tau, each, torch.device("cpu"))
        for device in {p.device for p in run.trained}:  # where history and V are
            afford("zoodip.tau", self.tau, sum(2 * p.numel() * widen(p).element_size() for p in run.trained), device)
        return run

    def init(self, p: Tensor) -> dict[str, Tensor]:
        """``history`` (tau, D) holds the last points, the rows of ``V`` (k, D) what is removed."""
        m = torch.zeros_like(p, dtype=widen(p).dtype)
        return {"m": m, "v": m.clone(), "history": p.new_zeros(self.tau, p.numel()), "V": m.new_zeros(0, p.numel())}

    def step(self, run: WholeOptimizer, closure: Callable[[], Tensor]) -> Tensor:
        """n + 1 forward passes on the same batch, with the same dropout; buffers move in the first one only."""
        directions = [[torch.randn_like(p) for p in run.trained] for _ in range(self.n)]
        closure = repeatable(closure, run.trained, run.model)
        loss = closure()
        total = [torch.zeros_like(p, dtype=widen(p).dtype) for p in run.trained]
        for z in directions:
            with moved(run.trained, z, self.mu):
                slope = (widen(closure()) - widen(loss)) / self.mu
            for g, x in zip(total, z, strict=True):
                g.add_(widen(x) * slope)
        self.descend(places := run.tensors(total))
        if places[0].state["step"] % self.tau == 0:
            parts = rare_directions([place.state["history"] for place in places], self.nu)
            for place, rows in zip(places, parts, strict=True):
                place.state["V"] = rows.to(place.state["m"])
        return loss

    def descend(self, places: list[Place]) -> None:
        """Bring Σ pᵢ zᵢ to the length of a gradient, and descend without its part along the rows of V."""
        rows = [place.state["V"] for place in places]  # (k, D), in parts
        left = sum(place.p.numel() for place in places) - len(rows[0])
        along = sum(v @ place.grad.flatten() for v, place in zip(rows, places, strict=True))
        for v, place in zip(rows, places, strict=True):
            kept = place.grad - (along @ v).view(place.p.shape)
            place.at.adam(place, kept / (self.n * ((left + self.n - 1) / self.n) ** 0.5))

    def adam(self, place: Place, grad: Tensor) -> None:
        """One step of Adam, whose end is kept."""
        p, state, (b1, b2), t = place.p, place.state, self.betas, place.state["step"]
        m, v = state["m"].lerp_(grad, 1 - b1), state["v"].mul_(b2).addcmul_(grad, grad, value=1 - b2)
        p.sub_((self.lr / (1 - b1**t) * m / ((v / (1 - b2**t)).sqrt() + self.eps)).to(p.dtype))
        state["history"][t % len(state["history"])] = p.flatten()


def rare_directions(history: Sequence[Tensor], nu: float) -> list[Tensor]:
    """Principal directions behind those that hold a share 1 - ν of the variance: (tau, D) -> (k, D), in parts."""
    x = torch.cat([h.cpu().double() for h in history], 1)
    # equivalent: 0 → 1: any of the points would do; with one taken off, a number that never moved is 0 exactly
    x = x - x[0]
    x = x - x.mean(0)
    _, s, v = torch.linalg.svd((x / x.std(0)).nan_to_num(), full_matrices=False)
    held, rank = s.square().cumsum(0), int((s.square() > torch.finfo(s.dtype).eps).sum())
    start = int((held <= (1 - nu) * held[-1]).sum()) + 1
    return list(v[start:rank].split([h.shape[1] for h in history], 1))  # behind the rank they are arbitrary


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"zoodip": ZOODiP}
