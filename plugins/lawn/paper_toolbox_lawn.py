"""LAWN: after a free start every layer's weights keep their norm, so that the logits cannot grow.

Gupta et al., "Logit Attenuating Weight Normalization", 2021.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import Optimizer, hookimpl, param
from paper_toolbox.errors import ParamError
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.wrap import Transform, WrappedOptimizer
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LAWN(Transform):
    """Free steps of the base, then its steps along the spheres that the weights of the layers lie on."""

    traits = ("fixed_length",)
    scheduled = True

    base: str = param("adam", "the optimizer inside: its name, with fields as in adam?eps=1e-6&betas=0.9,0.99")
    lr: float | None = param(None, "peak of the step size; none: the base's default", low=0, search=(1e-4, 1e-1))
    free_fraction: float = param(
        0.1, "share of the steps before the norms are fixed", low=0, high=1, search=(0.02, 0.5)
    )
    warmup_fraction: float = param(0.1, "share of the steps over which lr rises, in each phase", low=0, high=1)

    def build(self, params: Iterable[Any], *, steps_total: int, **given: Any) -> torch.optim.Optimizer:  # type: ignore[override]  # a must
        """``model`` tells which tensors are embeddings; each group's ``lr`` is its own peak."""
        built: Any = super().build(params, steps_total=steps_total, **given)
        if built.inner.scheduled or any("lr" not in group for group in built.param_groups):
            raise ParamError(f"LAWN.base = {self.base!r}: must be an optimizer whose lr may be set from outside")
        peaks = [group["lr"] for group in built.param_groups]
        built.own.update({"step": 0, "total": steps_total, "peaks": peaks, "radii": []})
        return built  # type: ignore[no-any-return]  # a WrappedOptimizer

    def step(self, run: WrappedOptimizer, closure: Any) -> Any:
        """``closure`` is what the base's step takes."""
        t, free = run.own["step"], round(self.free_fraction * run.own["total"])
        if t == free:
            self.fix(run)
        for group, peak in zip(run.param_groups, run.own["peaks"], strict=True):
            group["lr"] = peak * self.share(t, run.own["total"])
        run.own["step"] += 1
        if t < free:
            return run.base.step(closure)
        before = [p.clone() for p in self.layers(run)]
        loss = super().step(run, closure)
        for p, w, radius in zip(self.layers(run), before, run.own["radii"], strict=True):
            if p.grad is not None and radius:  # weights that are all zero lie on no sphere
                moved = w + tangent(p, w)  # what preconditions the gradient leaves the tangent space again
                p.copy_(moved * (radius / length(moved)))
        return loss

    def fix(self, run: WrappedOptimizer) -> None:
        """The switch: keep the norms, forget the moments."""
        run.own["radii"] = [float(length(p)) for p in self.layers(run)]
        run.state.clear()

    def transform(self, run: WrappedOptimizer) -> None:
        """Project each layer's gradient onto the tangent space of its sphere."""
        bound = set(self.layers(run))
        for p, g in zip(run.moved(), run.grads(), strict=True):
            if p in bound:
                g.copy_(tangent(g, p))

    def layers(self, run: WrappedOptimizer) -> list[Tensor]:
        """The weights that keep their norm: of two axes or more, and no embedding's."""
        modules = [] if run.model is None else run.model.modules()
        free = {m.weight for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
        return [p for p in run.trained if p.ndim > 1 and p not in free]

    def share(self, t: int, total: int) -> float:
        """Of the peak, in step t = 0, 1, …: it rises; at the switch it begins anew, and falls to 0 at the end."""
        free, warm = round(self.free_fraction * total), max(1, round(self.warmup_fraction * total))
        if t < free:
            return min(1.0, (t + 1) / warm)
        rise, left = (t - free + 1) / warm, (total - t) / max(1, total - free - warm)
        return max(0.0, min(rise, left))


def tangent(x: Tensor, w: Tensor) -> Tensor:
    """x without its part along w, in float32 or wider; zero if w is."""
    x, w = widen(x), widen(w)
    return x - w * ((x * w).sum() / (w * w).sum().clamp(min=torch.finfo(w.dtype).tiny))


def length(w: Tensor) -> Tensor:
    """‖w‖ of the whole tensor, in float32 or wider; ()."""
    norm: Tensor = torch.linalg.vector_norm(widen(w))
    return norm


@hookimpl
def optimizer() -> dict[str, type[Optimizer]]:
    return {"lawn": LAWN}
