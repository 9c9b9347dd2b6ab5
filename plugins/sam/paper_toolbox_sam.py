"""SAM: descend with the gradient of the worst point nearby.

Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paper_toolbox import hookimpl, param
from paper_toolbox.kit import vector
from paper_toolbox.kit.passes import kept, repeatable
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper


@dataclass(frozen=True, kw_only=True)
class SAM(Wrapper):
    """Climb to w + ρ g/‖g‖, take the gradient there, come back, and let the base step with it (Algorithm 1)."""

    closure = "gradient"

    rho: float = param(0.05, "radius of the neighbourhood", low=0)
    eps: float = param(1e-12, "added to the norm of the gradient", low=0)

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any]) -> Any:
        """``closure`` runs twice on the same batch, with the same dropout; buffers move in the first run only."""
        closure = repeatable(closure, run.trained, run.model)
        loss = closure()
        moved, g = run.moved(), run.grads()
        with kept(moved):
            vector.add(moved, g, self.rho / (vector.norm(g) + self.eps))  # eq. 2, p = 2
            closure()
        run.descend()
        return loss


@hookimpl
def optimizer() -> dict[str, type[Wrapper]]:
    return {"sam": SAM}
