"""Clipping by the global norm: a gradient that explodes keeps its direction and loses its length.

Pascanu et al., "On the difficulty of training Recurrent Neural Networks", ICML 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from paper_toolbox import hookimpl, param
from paper_toolbox.errors import ModelError
from paper_toolbox.kit import vector
from paper_toolbox.kit.wrap import Transform, WrappedOptimizer
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GradNormClip(Transform):
    """Scale all gradients together down to norm θ where they exceed it (Algorithm 1)."""

    traits = ("gradient_scale",)

    threshold: float = param(1.0, "θ: largest norm of all gradients together", above=0, search=(0.1, 10))
    nonfinite: Literal["skip", "raise"] = param("skip", "what a norm that is no finite number does to the step")

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any] | None) -> Any:
        """Once a pass had no finite norm, the base gets no gradients until the next step, and moves nothing."""
        run.own["skips"] = False
        return super().step(run, closure)

    def transform(self, run: WrappedOptimizer) -> None:
        grads = run.grads()
        norm = length(grads)
        if not math.isfinite(norm):
            self.refuse(run, norm)
        if run.own["skips"]:
            for p in run.moved():
                p.grad = None
        elif norm > self.threshold:
            for g in grads:
                g.mul_(self.threshold / norm)

    def refuse(self, run: WrappedOptimizer, norm: float) -> None:
        """Count and skip the step, or raise."""
        if self.nonfinite == "raise":
            raise ModelError(f"the norm of the gradients became {norm}: lower lr, or set nonfinite=skip")
        run.own["skips"] = True
        run.own["skipped"] = run.own.get("skipped", 0) + 1


def length(grads: list[Tensor]) -> float:
    """‖g‖₂ over all tensors together, in float32 or wider; finite if every entry is."""
    norm = float(vector.norm(grads))
    if math.isinf(norm) and math.isfinite(largest := max(float(g.abs().max()) for g in grads if g.numel())):
        return largest * length([g / largest for g in grads])  # squares of large entries overflow
    return norm


@hookimpl
def optimizer() -> dict[str, type[Transform]]:
    return {"grad_norm_clip": GradNormClip}
