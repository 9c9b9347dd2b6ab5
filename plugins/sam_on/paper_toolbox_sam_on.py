"""SAM-ON: climb in the norm layers' gains and shifts alone, then descend with every gradient found there.

Mueller et al., "Normalization Layers Are All That Sharpness-Aware Minimization Needs", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit import vector
from paper_toolbox.kit.norms import is_norm
from paper_toolbox.kit.passes import kept, repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper
from torch import Tensor, nn

TINY = 1e-16  # added to the norm of the gradient, as the authors do


@dataclass(frozen=True, kw_only=True)
class SAMON(Wrapper):
    """SAM or ASAM whose perturbation is that of the norm layers; the base moves all tensors (section 3)."""

    closure = "gradient"

    rho: float = param(0.5, "radius of the neighbourhood", low=0, search=(0.05, 20))
    scope: Literal["norm", "no_norm", "all"] = param(
        "norm", "perturb gains and shifts of norm layers, all but these, or every tensor"
    )
    adaptive: Literal["none", "elementwise", "layerwise"] = param(
        "none", "T, ASAM's scale: 1, |w| of each number, or ‖w‖ of each tensor"
    )
    norm: Literal["l2", "linf"] = param("l2", "of the neighbourhood: a ball, or a box")
    eta: float = param(0.01, "added to ASAM's scale", low=0)
    normalize_bias: bool = param(True, "ASAM's scale for biases and shifts, too; without: theirs is 1")

    def build(self, params: Iterable[Any], *, model: nn.Module, **given: Any) -> torch.optim.Optimizer:  # type: ignore[override]  # a must
        """``model`` tells which tensors are gains and shifts of norm layers."""
        built: Any = super().build(params, model=model, **given)
        if self.scope != "all" and gains_and_shifts(model).isdisjoint(built.trained):
            raise NeedError(
                f"SAMON.scope = {self.scope!r}: no norm layer of the model has a trained gain or shift; "
                "name a model with norm layers, or set scope=all, which is SAM or ASAM"
            )
        return built  # type: ignore[no-any-return]  # a WrappedOptimizer

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any]) -> Any:
        """``closure`` runs twice on the same batch, with the same dropout; buffers move in the first run only."""
        closure = repeatable(closure, run.trained, run.model)
        loss = closure()
        model: Any = run.model
        inside, biases = gains_and_shifts(model), {p for n, p in model.named_parameters() if n.endswith("bias")}
        climbing = [p for p in run.moved() if self.scope == "all" or (p in inside) == (self.scope == "norm")]
        with kept(climbing):
            for p, e in zip(climbing, self.ascent(climbing, biases), strict=True):
                p.add_(e)
            closure()
        run.descend()
        return loss

    def ascent(self, climbing: list[Any], biases: set[Tensor]) -> list[Tensor]:
        """ε = ρ T² g / ‖T g‖₂ over all tensors ``climbing`` together, or ρ T sign(g); T = 1 is plain SAM."""
        scales = [self.scale(p, p in biases) for p in climbing]
        slopes = [t * p.grad.to(t.dtype) for t, p in zip(scales, climbing, strict=True)]
        if self.norm == "l2":
            share = self.rho / (vector.norm(slopes) + TINY)
            units = [share.to(s.device) * s for s in slopes]
        else:
            units = [self.rho * s.sign() for s in slopes]
        return [(t * u).to(p.dtype) for t, u, p in zip(scales, units, climbing, strict=True)]

    def scale(self, p: Tensor, is_bias: bool) -> Tensor:
        """T, in float32 or wider. p (*) -> (*) or ()."""
        wide = widen(p)
        if self.adaptive == "none" or (is_bias and not self.normalize_bias):
            return wide.new_ones(())
        return self.eta + (wide.abs() if self.adaptive == "elementwise" else torch.linalg.vector_norm(wide))


def gains_and_shifts(model: nn.Module) -> set[Tensor]:
    """The parameters of norm layers."""
    return {p for layer in model.modules() if is_norm(layer) for p in layer.parameters(recurse=False)}


@hookimpl
def optimizer() -> dict[str, type[Wrapper]]:
    return {"sam_on": SAMON}
