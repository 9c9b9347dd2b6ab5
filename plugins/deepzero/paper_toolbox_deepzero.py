"""DeepZero: SGD on coordinate-wise finite differences of a changing part of the weights.

Chen et al., "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model Training", ICLR 2024, arXiv:2310.02025.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.passes import moved, repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn

Loss = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class DeepZero(Whole):
    """SGD with momentum, whose gradient is (l(w + μ eᵢ) - l(w))/μ where i is active, else 0 (sections 3, 4)."""

    traits = ("differences",)
    closure = "loss"

    lr: float = param(0.1, "step size", low=0, search=(1e-3, 1.0))
    momentum: float = param(0.9, "decay of the running sum of gradients", low=0, below=1)
    weight_decay: float = param(5e-4, "λ in g + λ w", low=0)
    estimator: Literal["cge", "rge"] = param("cge", "differences along coordinates, or along q random directions")
    mu: float = param(5e-3, "length of a finite difference", above=0, search=(1e-4, 0.1))
    sparsity: float = param(0.9, "share of the weights that is not active (cge)", low=0, below=1)
    ratios: Literal["zo_grasp", "uniform"] = param("zo_grasp", "how layers share the active weights")
    mask_interval: int = param(1, "epochs after which other weights become active", low=1)
    q: int = param(192, "random directions of rge, and of zo_grasp", low=1)

    def build(self, params: Any, *, model: nn.Module | None = None, steps_per_epoch: int = 1) -> WholeOptimizer:
        """``model`` keeps its buffers in all passes of a step but the first."""
        run = WholeOptimizer(self, params, model)
        run.param_groups[0]["mask_steps"] = self.mask_interval * steps_per_epoch
        return run

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"momentum": torch.zeros_like(p, dtype=widen(p).dtype)}

    def step(self, run: WholeOptimizer, closure: Loss) -> Tensor:
        """One pass for each active coordinate and one more; all with the same batch and the same dropout."""
        places = run.tensors(run.trained)
        device = places[0].p.device
        random = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), device=device)))
        loss = repeatable(lambda: widen(closure()), run.trained, run.model)
        base = loss()
        if self.estimator == "cge":
            self.activate(places, run.param_groups[0]["mask_steps"], loss, random)
            grads = [self.cge(place, loss, base) for place in places]
        else:
            grads = self.rge([place.p for place in places], loss, base, random)
        for place, grad in zip(places, grads, strict=True):
            at, p = place.at, place.p
            momentum = place.state["momentum"].mul_(at.momentum).add_(grad + at.weight_decay * p)
            p.sub_((at.lr * momentum).to(p.dtype))
        return base

    def activate(self, places: list[Place], steps: int, loss: Loss, random: torch.Generator) -> None:
        """Draw the active weights, every ``steps`` steps, as many as the first step counted; vectors are active."""
        weights, made = [place for place in places if place.p.ndim > 1], places[0].state["step"] - 1
        if not made:
            for place, count in zip(weights, self.counts([place.p for place in weights], loss, random), strict=True):
                place.state["active"] = count
        for place in weights if made % steps == 0 else []:
            order = torch.randperm(place.p.numel(), generator=random, device=place.p.device)
            place.state["mask"] = (order < place.state["active"]).view(place.p.shape)

    def counts(self, weights: list[Tensor], loss: Loss, random: torch.Generator) -> list[int]:
        """How many numbers of each weight are active; ZO-GraSP counts the largest |w ⊙ H ∇l| (section 4)."""
        sizes = [p.numel() for p in weights]
        if self.ratios == "uniform" or not weights or not self.sparsity:
            return [size - round(self.sparsity * size) for size in sizes]
        here = self.rge(weights, loss, loss(), random)
        with moved(weights, here, self.mu):
            there = self.rge(weights, loss, loss(), random)
        scores = torch.cat([(p * (b - a)).abs().flatten() for p, a, b in zip(weights, here, there, strict=True)])
        active = torch.ones_like(scores, dtype=torch.bool)
        active[scores.argsort()[: round(self.sparsity * len(scores))]] = False
        return [int(part.sum()) for part in torch.split(active, sizes)]

    def cge(self, place: Place, loss: Loss, base: Tensor) -> Tensor:
        """The forward difference along each active coordinate of a tensor."""
        p, found = place.p, torch.zeros_like(place.p, dtype=widen(place.p).dtype)
        for index in map(tuple, place.state.get("mask", torch.ones_like(p, dtype=torch.bool)).nonzero().tolist()):
            with moved([p[index]], [torch.ones_like(p[index])], self.mu):
                found[index] = (loss() - base) / self.mu
        return found

    def rge(self, tensors: list[Tensor], loss: Loss, base: Tensor, random: torch.Generator) -> list[Tensor]:
        """Σ (l(w + μ u) - l(w))/μ · u / q over q directions u ~ N(0, I) (section 3)."""
        found = [torch.zeros_like(p, dtype=widen(p).dtype) for p in tensors]
        for _ in range(self.q):
            u = [torch.randn(p.shape, dtype=p.dtype, device=p.device, generator=random) for p in tensors]
            with moved(tensors, u, self.mu):
                slope = (loss() - base) / self.mu
            for g, x in zip(found, u, strict=True):
                g.add_(widen(x) * slope, alpha=1 / self.q)
        return found


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"deepzero": DeepZero}
