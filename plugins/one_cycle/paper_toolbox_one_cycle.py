"""One cycle: the step size climbs to a high peak and comes back, while the momentum does the opposite.

Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import Optimizer, hookimpl, param
from paper_toolbox.errors import ParamError
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper


@dataclass(frozen=True, kw_only=True)
class OneCycle(Wrapper):
    """Up to the peak, as long down again, then far below the start, while the base steps as it always does."""

    around = ("none", "gradient", "loss", "samples")
    scheduled = True

    lr: float | None = param(None, "peak of the step size; none: the base's default", low=0, search=(1e-3, 3))
    momentum: float | None = param(None, "momentum of the base, which then stays; none: it moves", low=0)
    momenta: tuple[float, float] = param((0.85, 0.95), "momentum or first beta: at the peak, off it", above=0, below=1)
    pct_start: float = param(0.45, "share of the steps that climb, and share that come down", above=0, high=0.5)
    div_factor: float = param(10.0, "peak / first step size", low=1, search=(3, 30))
    final_div_factor: float = param(100.0, "first / last step size", low=1)

    @property
    def closure(self) -> Any:  # type: ignore[override]  # the base's, which a field names
        return self.inner().closure

    def build(self, params: Iterable[Any], *, steps_total: int, **given: Any) -> torch.optim.Optimizer:  # type: ignore[override]  # a must
        """Each group's ``lr`` is the peak of its own cycle."""
        built: Any = super().build(params, steps_total=steps_total, **given)
        if built.inner.scheduled or any("lr" not in group for group in built.param_groups):
            raise ParamError(f"OneCycle.base = {self.base!r}: must be an optimizer whose lr may be set from outside")
        built.own.update({"step": 0, "total": steps_total, "peaks": [group["lr"] for group in built.param_groups]})
        return built  # type: ignore[no-any-return]  # a WrappedOptimizer

    def step(self, run: WrappedOptimizer, closure: Any) -> Any:
        """``closure`` is what the base's step takes."""
        share, momentum = self.at(run.own["step"], run.own["total"])
        for group, peak in zip(run.param_groups, run.own["peaks"], strict=True):
            group["lr"] = peak * share
            if self.momentum is None and "momentum" in group:
                group["momentum"] = momentum
            elif self.momentum is None and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
        run.own["step"] += 1
        return run.base.step(closure)

    def at(self, t: int, total: int) -> tuple[float, float]:
        """Step size as a share of the peak, and momentum, in step t = 0, 1, … of ``total``; then the last ones."""
        turns = (0.0, self.pct_start * total - 1, 2 * self.pct_start * total - 2, total - 1.0)
        first, (low, high) = 1 / self.div_factor, self.momenta
        shares, momenta = (first, 1.0, first, first / self.final_div_factor), (high, low, high, high)
        i = 0 if t <= turns[1] else 1 if t <= turns[2] else 2
        done = passed(t, turns[i], turns[i + 1])
        return between(shares[i], shares[i + 1], done), between(momenta[i], momenta[i + 1], done)


def passed(t: float, begin: float, end: float) -> float:
    """How much of the way from begin to end is done at t: 0 before it, 1 behind it."""
    return min(1.0, (t - begin) / (end - begin)) if t > begin else 0.0


def between(a: float, b: float, done: float) -> float:
    """The point on the way from a to b."""
    return a + (b - a) * done


@hookimpl
def optimizer() -> dict[str, type[Optimizer]]:
    return {"one_cycle": OneCycle}
