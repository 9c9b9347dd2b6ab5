"""SaRA: fine-tune the smallest weights alone, those that a model hardly uses, towards a change of low rank.

Hu et al., "SaRA: High-Efficient Diffusion Model Fine-tuning with Progressive Sparse Low-Rank Adaptation", ICLR 2025.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import ModelError
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SaRA(Whole):
    """AdamW on the entries with |θ₀| < τ; midway those that have grown are left where they are."""

    traits = ("smallest", "trained")

    lr: float = param(5e-4, "step size", low=0, search=(1e-5, 1e-2))
    quantile: float = param(
        0.1, "share of all entries, the smallest, that is trained", above=0, high=1, search=(0.01, 1)
    )
    threshold: float | None = param(
        None, "τ: train the entries below it, whatever their share; none: quantile", above=0
    )
    lambda_rank: float = param(5e-4, "weight of the nuclear norm of what is trained of a matrix", low=0)
    min_size: int = param(64, "matrices both of whose axes are longer have that penalty, one of them a step", low=0)
    betas: tuple[float, float] = param((0.9, 0.999), "decay of both moments", low=0, below=1)
    eps: float = param(1e-8, "added to the root of the second moment", low=0)
    weight_decay: float = param(0.01, "decoupled decay of the entries trained", low=0)
    progressive_at: float = param(0.5, "share of the run after which entries beyond τ rest; 1: never", low=0, high=1)

    def build(  # type: ignore[override]  # what happens midway depends on the length of the run
        self, params: Iterable[Any], *, steps_total: int, model: nn.Module | None = None
    ) -> torch.optim.Optimizer:
        optimizer = WholeOptimizer(self, params, model)
        tau = smallest(optimizer.trained, self.quantile) if self.threshold is None else self.threshold
        if not any((widen(p).abs() < tau).any() for p in optimizer.trained):
            raise ModelError(
                f"SaRA would train nothing: no weight is below {tau:g} in size; raise quantile or threshold"
            )
        optimizer.param_groups[0].update(tau=tau, steps_total=steps_total, done=0)
        return optimizer

    def step(self, run: WholeOptimizer, closure: None) -> None:
        plan, places = run.param_groups[0], run.tensors()
        plan["done"] += 1
        late = plan["done"] > self.progressive_at * plan["steps_total"]
        for place in places:
            if place.state.get("late") != late:
                self.begin(place, plan["tau"], late)
        matrices = [x for x in places if x.p.ndim == 2 and min(x.p.shape) > self.min_size and len(x.state["where"])]
        drawn = matrices[draw(len(matrices), plan["done"])] if matrices and self.lambda_rank else None
        for place in places:
            where = place.state["where"]
            grad = widen(place.grad).take(where)
            if place is drawn:
                grad = grad + self.lambda_rank * nuclear_slope(place.p, where)
            self.adamw(place, grad)

    def begin(self, place: Place, tau: float, late: bool) -> None:
        """Train the entries below τ, (K,) of them, with moments of 0. What is not trained stays beyond τ."""
        values = widen(place.p).flatten()
        where = (values.abs() < tau).nonzero()[:, 0]
        zeros = torch.zeros_like(values[where])
        place.state.update(where=where, m=zeros, v=zeros.clone(), since=place.state["step"] - 1, late=late)

    def adamw(self, place: Place, grad: Tensor) -> None:
        """One step of the entries trained; grad (K,)."""
        at, state, (b1, b2) = place.at, place.state, place.at.betas
        m, v, t = state["m"], state["v"], state["step"] - state["since"]
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        w = widen(place.p.take(state["where"])) * (1 - at.lr * at.weight_decay)
        root = (v / (1 - b2**t)).sqrt() + at.eps
        w.addcdiv_(m, root, value=-at.lr / (1 - b1**t))
        place.p.put_(state["where"], w.to(place.p.dtype))


def smallest(tensors: Sequence[Tensor], quantile: float) -> float:
    """τ such that the share ``quantile`` of all entries has |θ| < τ, where no two are equal."""
    sizes = torch.cat([widen(p).abs().flatten().to(tensors[0].device) for p in tensors])
    count = int(quantile * len(sizes))
    return float(sizes.kthvalue(count + 1).values.item()) if count < len(sizes) else math.inf


def draw(count: int, step: int) -> int:
    """A number below ``count``: another one in each step, the same in every process."""
    return int(torch.randint(count, (), generator=torch.Generator().manual_seed(step)))


def nuclear_slope(p: Tensor, where: Tensor) -> Tensor:
    """The gradient U Vᵀ of the nuclear norm of ``p`` (O, I) with zeros elsewhere, at the entries ``where``: (K,)."""
    kept = torch.zeros_like(widen(p)).put_(where, widen(p).take(where))
    u, s, vh = torch.linalg.svd(kept, full_matrices=False)
    u = u * (s > s[0] * torch.finfo(s.dtype).eps * sum(p.shape))  # directions of no length have no slope
    slope: Tensor = (u @ vh).take(where)
    return slope


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"sara": SaRA}
