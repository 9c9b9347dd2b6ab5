"""ProxyProx: proximal steps on a cheap proxy of the loss, for one gradient of the loss each.

Woodworth et al., "Two Losses Are Better Than One: Faster Optimization Using a Cheaper Proxy", ICML 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit import batch, vector
from paper_toolbox.kit.passes import repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.whole import Whole, WholeOptimizer
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ProxyProx(Whole):
    """x ← about the minimum of ĥ(y) + ⟨∇h(x) - ∇ĥ(x), y⟩ + |y - x|² / 2η, h the loss and ĥ its proxy (Algorithm 1)."""

    closure = "samples"

    lr: float = param(
        0.1, "size γ of the inner steps: at most 1 / (1 / η + the smoothness of ĥ)", low=0, search=(1e-3, 1.0)
    )
    eta: float = param(1.0, "step size η of the outer steps: at best 1 / 2δ", above=0, search=(1e-2, 1e2))
    inner_steps: int = param(10, "most inner steps, one gradient of the proxy each", low=1)
    inner_tol: float = param(0.1, "an inner gradient of this share of ∇h ends the inner steps", low=0, below=1)
    proxy_share: float = param(0.25, "share of the batch's samples whose loss is the proxy", above=0, high=1)

    def proxy(self, samples: Samples) -> Callable[[], Tensor]:
        """ĥ of one step, drawn at random and then fixed; a subclass may return any other loss of the parameters."""
        parts = []
        for inputs, targets in samples.batches:
            kept = torch.randperm(len(targets))[: math.ceil(self.proxy_share * len(targets))].to(targets.device)
            parts.append((batch.apply(lambda x, kept=kept: x[kept], inputs), targets[kept]))  # type: ignore[misc]  # kept is bound at once
        return Samples(samples.model, parts, samples.score, samples.autocast)

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        proxy = self.proxy(closure)

        @torch.enable_grad()
        def differentiated(loss: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
            value = loss()
            found = torch.autograd.grad(value, run.trained, materialize_grads=True)
            return value.detach(), [widen(g) for g in found]

        slopes = repeatable(differentiated, run.trained, closure.model)
        value, g = slopes(closure)
        places, start = run.tensors(g), [widen(p).clone() for p in run.trained]
        correction: list[Tensor] = []
        for _ in range(self.inner_steps):
            here = slopes(proxy)[1]
            correction = correction or [a - b for a, b in zip(g, here, strict=True)]  # c = ∇h(x) - ∇ĥ(x)
            away = [(place.p - old) / place.at.eta for place, old in zip(places, start, strict=True)]
            u = [a + b + c for a, b, c in zip(here, correction, away, strict=True)]
            if vector.norm(u) <= self.inner_tol * vector.norm(g):
                break
            for place, x in zip(places, u, strict=True):
                place.p.sub_(place.at.lr * x)
        return value


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"proxyprox": ProxyProx}
