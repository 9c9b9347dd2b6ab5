"""SANIA: Polyak's step size on a diagonal preconditioner, which makes the scales of features irrelevant.

Abdukhakimov et al., "SANIA: Polyak-type Optimization Framework Leads to Scale Invariant Stochastic Algorithms", 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True, kw_only=True)
class Sania(Whole):
    """w ← w - λ B⁻¹ g, to the nearest point where the model f + ⟨g, ·⟩ + ‖·‖²_B / 2 is f*; no step size to be set."""

    closure = "loss"

    variant: Literal["adam_sqr", "adagrad_sqr", "adam", "adagrad", "hutchinson"] = param(
        "adam_sqr", "B: squared gradients (sqr: no root over them), or Hutchinson's diagonal of H"
    )
    f_star: float = param(0.0, "loss of a batch at the optimum: 0 where the model can fit all samples")
    beta2: float = param(0.999, "decay of the running means of adam and hutchinson", low=0, below=1)
    eps: float = param(1e-8, "the smallest B, under the root where there is one", above=0, search=(1e-12, 1.0))

    @property
    def traits(self) -> Any:  # type: ignore[override]  # a field decides
        return {"hutchinson": ("least_loss", "second_order")}.get(self.variant, ("least_loss",))

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"s": torch.zeros_like(widen(p))}

    def step(self, run: WholeOptimizer, closure: Callable[[], Tensor]) -> Tensor:
        second = any(group["variant"] == "hutchinson" for group in run.param_groups)
        # attention's fused kernels have no second derivative, its plain formula has
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if second else nullcontext():
            loss = closure()
            grads = torch.autograd.grad(loss, run.trained, allow_unused=True, create_graph=second)
        places = run.tensors(grads)
        curved = products(places) if second else [place.grad for place in places]
        along = [self.direction(place, h) for place, h in zip(places, curved, strict=True)]
        norms = [(widen(place.grad) * d).sum().to(loss.device) for place, d in zip(places, along, strict=True)]
        for place, d in zip(places, along, strict=True):
            length = polyak(widen(loss) - place.at.f_star, torch.stack(norms).sum())
            place.p.sub_(d * length.to(d))
        return loss.detach()

    @staticmethod
    def direction(place: Place, curved: Tensor) -> Tensor:
        """B⁻¹ g, after ``s`` has taken in the gradient or, of Hutchinson's variant, what is ``curved``."""
        at, s, g = place.at, place.state["s"], widen(place.grad)
        size = widen(curved).abs() if at.variant == "hutchinson" else g.square()
        if at.variant.startswith("adagrad"):
            v = s.add_(size)
        else:
            v = s.lerp_(size, 1 - at.beta2) / (1 - at.beta2 ** place.state["step"])
        b: Tensor = v.clamp(min=at.eps)
        return g / (b.sqrt() if at.variant in ("adam", "adagrad") else b)


def polyak(gap: Tensor, norm: Tensor) -> Tensor:
    """λ = 1 - √(1 - 2 gap / norm) where there is a root, else 1; ``norm`` is ‖g‖² in B⁻¹. All ()."""
    gap = gap.clamp(min=0)
    ratio = 2 * gap / norm
    return torch.where(ratio < 1, ratio / (1 + (1 - ratio).sqrt()), 1)  # the same λ, exact where it is tiny


def products(places: list[Place]) -> list[Tensor]:
    """H z with z of ±1, tensor by tensor: the mean of z ⊙ H z is the Hessian's diagonal, and |z ⊙ H z| = |H z|."""
    signs = [torch.ones_like(place.p).copysign(torch.randn_like(place.p)) for place in places]
    linked = [(place.grad, z) for place, z in zip(places, signs, strict=True) if place.grad.requires_grad]
    if not linked:  # a loss linear in the weights
        return [torch.zeros_like(z) for z in signs]
    slopes, along = zip(*linked, strict=True)
    return list(torch.autograd.grad(slopes, [place.p for place in places], along, materialize_grads=True))


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"sania": Sania}
