"""GAM: seek minima around which the gradient, and not only the loss, stays small.

Zhang et al., "Gradient Norm Aware Minimization Seeks First-Order Flatness and Improves Generalization", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paper_toolbox import hookimpl, param
from paper_toolbox.kit import vector
from paper_toolbox.kit.passes import kept, repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GAM(Wrapper):
    """The accelerated form: four gradients stand for the loss, its sharpness and the gradient's norm (section 3.3)."""

    closure = "gradient"

    rho: float = param(0.2, "ρ: radius in which the gradient's norm is made largest", low=0, search=(0.02, 1))
    rho_prime: float = param(0.02, "ρ': radius of the steps along the gradient", low=0, search=(0.005, 0.2))
    beta0: float = param(0.5, "share of g₀ in the part that is projected; g₂ has the rest beside it", low=0, high=1)
    beta1: float = param(0.6, "share of g₁ in the main part; g₃ has the rest", low=0, high=1)
    gamma: float = param(0.03, "γ: how far to go against what is perpendicular to the main part", low=0)
    adaptive: bool = param(False, "radii in units of each weight, as in ASAM")
    eps: float = param(1e-12, "ξ: added to norms that are divided by", low=0)

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any]) -> Any:
        """``closure`` runs four times on a batch, with the same dropout; buffers move in the first run only."""
        closure = repeatable(closure, run.trained, run.model)
        loss = closure()
        moved, rest = run.moved(), copies(run.grads())  # g₀
        with kept(moved) as start:
            self.climb(moved, rest, self.rho_prime)
            closure()
            main = copies(run.grads())  # g₁
            put(moved, start)
            for x, g0 in zip(run.grads(), rest, strict=True):
                x.sub_(g0)
            self.climb(moved, run.grads(), self.rho)  # along g₁ - g₀
            closure()
            for x, g2 in zip(rest, run.grads(), strict=True):
                x.add_(g2, alpha=1 - self.beta0)
            self.climb(moved, run.grads(), self.rho_prime)
            closure()
        for x, g3 in zip(main, run.grads(), strict=True):
            x.lerp_(g3, 1 - self.beta1)
        self.turn(main, rest)
        put(run.grads(), main)
        run.descend()
        return loss

    def climb(self, moved: list[Tensor], along: list[Tensor], by: float) -> None:
        """By ρ g / ‖g‖, the norm over all tensors together; adaptive: by ρ w² g / ‖w g‖."""
        slopes = [widen(p) * g for p, g in zip(moved, along, strict=True)] if self.adaptive else along
        share = by / (vector.norm(slopes) + self.eps)
        vector.add(moved, [p * s for p, s in zip(moved, slopes, strict=True)] if self.adaptive else along, share)

    def turn(self, main: list[Tensor], rest: list[Tensor]) -> None:
        """From the main part goes γ times what is perpendicular to it in the rest of the loss's own gradients."""
        m, r = vector.norm(main), vector.norm(rest)
        along = vector.inner(rest, main) / (r * m + self.eps) * r / (m + self.eps)
        vector.add(rest, main, -along)
        for x, y in zip(main, rest, strict=True):
            x.sub_(y, alpha=self.gamma)


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """Gradients change in place."""
    return [x.clone() for x in tensors]


def put(tensors: list[Tensor], values: list[Tensor]) -> None:
    """The values into the tensors."""
    for x, value in zip(tensors, values, strict=True):
        x.copy_(value)


@hookimpl
def optimizer() -> dict[str, type[Wrapper]]:
    return {"gam": GAM}
