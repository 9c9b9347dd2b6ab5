"""Greedy block coordinate descent: of all blocks the one that promises most is moved, and no other.

Nutini, Laradji and Schmidt, "Let's Make Block Coordinate Descent Converge Faster: …", 2017, arXiv:1712.08859.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import Optimizer, hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit.passes import repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn

from .bound import curvature, descend, gain


@dataclass(frozen=True, kw_only=True)
class GreedyBCD(Whole):
    """w_b ← w_b + argmin ⟨g_b, d⟩ + L_b ‖d‖²_D / 2 + λ ‖w_b + d‖₁ for one block b; D is I, or a bound on diag H."""

    traits = ("differences",)

    rule: Literal["gs", "gsl", "gsd", "cyclic", "random"] = param("gsl", "b: most ‖g_b‖², by L_b, by L_b D; in turn")
    lipschitz: float | None = param(None, "L_b, how fast g_b changes; none: found by backtracking", above=0)
    start: float = param(1.0, "L_b where backtracking begins", above=0, search=(1e-2, 1e2))
    tau: int | None = param(None, "a block is so many numbers, of any tensors; none: it is a tensor", low=1)
    l1: float = param(0.0, "λ, weight of the sum of |w| beside the loss", low=0, search=(1e-6, 1e-2))

    @property
    def closure(self) -> Literal["none", "loss"]:  # type: ignore[override]  # backtracking alone looks at the loss
        return "loss" if self.lipschitz is None else "none"

    def build(self, params: Iterable[Any], *, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Rule ``gsd`` reads D from groups ``{"params": [p, …], "diagonal": [D of p, …]}``."""
        groups = [dict(g) if isinstance(g, dict) else {"params": [g]} for g in params]
        given = {p: d for group in groups for p, d in zip(group["params"], group.pop("diagonal", ()), strict=False)}
        run = WholeOptimizer(self, groups, model)
        for p in run.trained if self.rule == "gsd" else ():
            if p not in given or given[p].shape != p.shape:
                what = "for every parameter a positive bound on its part of the Hessian's diagonal, in its shape"
                raise NeedError(f"greedy_bcd.rule = gsd needs groups with a key 'diagonal': {what}")
            run.state[p]["diagonal"] = widen(given[p])
        return run

    def step(self, run: WholeOptimizer, closure: Callable[[], Tensor] | None) -> Tensor | None:
        loss, grads = None, None
        if closure is not None:
            closure = repeatable(closure, run.trained, run.model)
            with torch.enable_grad():
                loss = closure()
                grads = torch.autograd.grad(loss, run.trained, allow_unused=True)
        places = run.tensors(grads)
        for place in places:
            place.state["L"] = place.at.lipschitz or place.state.get("L", place.at.start)

        def fits(bound: Tensor) -> bool:
            # equivalent: or → and: the loss is there where the closure is
            if closure is None or loss is None:
                return True
            rounding = 10 * torch.finfo(loss.dtype).eps * loss.abs()
            return bool(closure() <= loss + bound.to(loss.device) + rounding)

        descend(self.block(places), fits)
        return None if loss is None else loss.detach()

    def block(self, places: list[Place]) -> list[tuple[Place, Tensor]]:
        """The tensors that are to move, each with a mask of its entries that do."""
        if not places:
            return []
        scores = self.scores(places)
        best = scores.topk(min(self.tau or 1, len(scores))).indices
        mask = torch.zeros_like(scores, dtype=torch.bool).index_fill(0, best, True)
        parts = torch.split(mask, [place.p.numel() if self.tau else 1 for place in places])
        pairs = [(place, part) for place, part in zip(places, parts, strict=True) if part.any()]
        return [(place, part.to(place.p.device).view(place.p.shape if self.tau else ())) for place, part in pairs]

    def scores(self, places: list[Place]) -> Tensor:
        """What each tensor promises, (B,); where blocks vary, each number, (n,)."""
        size = sum(place.p.numel() for place in places) if self.tau else len(places)
        if self.rule == "random":
            return torch.rand(size)
        if self.rule == "cyclic":
            first: int = (places[0].state["step"] - 1) * (self.tau or 1)
            return -((torch.arange(size) - first) % size)
        gains = [gain(place, 1.0 if self.rule == "gs" else curvature(place)) for place in places]
        found = [each.flatten() if self.tau else each.sum()[None] for each in gains]
        return torch.cat([each.to(found[0].device) for each in found])


@hookimpl
def optimizer() -> dict[str, type[Optimizer]]:
    return {"greedy_bcd": GreedyBCD}
