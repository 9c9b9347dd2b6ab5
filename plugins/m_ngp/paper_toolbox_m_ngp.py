"""m-NGP: differentially private descent, each sample's gradient divided by its norm where that exceeds one.

Kang et al., "Sharper Utility Bounds for Differentially Private Models", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit.persample import parameter_gradients
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.whole import Whole, WholeOptimizer
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MNGP(Whole):
    """w ← w - η (mean of g_i / max{1, |g_i|} + N(0, σ² I)), σ such that the run is (ε, δ)-private."""

    traits = ("apart", "mapped", "private")
    closure = "samples"

    lr: float = param(0.1, "step size η", low=0, search=(1e-3, 3.0))
    epsilon: float = param(1.0, "privacy budget ε of the whole run; small is private", above=0)
    delta: float = param(1e-5, "probability δ with which ε may fail; well below 1 / samples", above=0, below=1)
    threshold: float = param(
        1.0, "norm above which a sample's gradient is scaled down to it", above=0, search=(0.1, 10)
    )
    chunk: int = param(64, "samples whose gradients are in memory at once", low=1)

    def build(  # type: ignore[override]  # the noise depends on the length of the run
        self, params: Iterable[Any], *, steps_total: int, steps_per_epoch: int = 1, model: nn.Module | None = None
    ) -> torch.optim.Optimizer:
        """In an epoch of ``steps_per_epoch`` steps each sample may come once: 1 for steps on all of the data."""
        optimizer = super().build(params, model=model)
        uses = math.ceil(steps_total / steps_per_epoch)
        optimizer.param_groups[0].update(steps_total=steps_total, uses=uses)
        return optimizer

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        """The loss is that of the samples as they are: unlike the weights, it is not private."""
        total, parts = [torch.zeros_like(widen(p)) for p in run.trained], []
        for losses, grads in parameter_gradients(closure, run.trained, self.chunk):
            factor = self.factor(grads)
            for x, g in zip(total, grads, strict=True):
                x.add_(torch.tensordot(factor.to(x), widen(g), 1))
            parts.append(losses)
        loss = torch.cat(parts)
        places, plan = run.tensors(total), run.param_groups[0]
        if places[0].state["step"] > plan["steps_total"]:
            raise NeedError(f"MNGP: the privacy budget is spent, after steps_total = {plan['steps_total']} steps")
        sigma = deviation(2 * self.threshold / len(loss), plan["uses"], self.epsilon, self.delta)
        for place in places:
            # drawn in order of the axes: the layout in memory does not matter
            noise = torch.randn(place.p.shape, dtype=place.grad.dtype, device=place.p.device)
            place.p.sub_(place.grad / len(loss) + sigma * noise, alpha=place.at.lr)
        return loss.mean()

    def factor(self, grads: list[Tensor]) -> Tensor:
        """What each sample's gradient is multiplied by. grads (b, *shape) each -> (b,), in float32 or wider."""
        norms = [torch.linalg.vector_norm(widen(g).reshape(len(g), -1), dim=1).to(grads[0].device) for g in grads]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return self.threshold / norm.clamp(min=self.threshold)


def deviation(sensitivity: float, uses: int, epsilon: float, delta: float) -> float:
    """σ of (ε, δ)-privacy for Gaussian noise on ``uses`` sums that one sample moves by ``sensitivity`` at most.

    With u = sensitivity √uses / σ, zero-concentrated privacy gives ε = u² / 2 + u √(2 ln(1/δ)), solved for u.
    """
    spread = 2 * math.log(1 / delta)
    u = 2 * epsilon / (math.sqrt(spread) + math.sqrt(spread + 2 * epsilon))
    return sensitivity * math.sqrt(uses) / u


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"m_ngp": MNGP}
