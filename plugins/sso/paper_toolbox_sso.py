"""SSO: several steps of the model on a surrogate of the loss that is a quadratic of the outputs.

Lavington et al., "Target-based Surrogates for Stochastic Optimization", ICML 2023, arXiv:2302.02607.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit import vector
from paper_toolbox.kit.passes import buffers_kept, repeatable
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.whole import Place, Whole, WholeOptimizer
from torch import Tensor, nn

ENOUGH, SHRINK, GROW, TRIALS = 0.5, 0.9, 1.8, 100  # of the line search
FLAT = 1e-6  # a gradient of the surrogate of at most this norm ends the inner steps

Surrogate = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class SSO(Whole):
    """m steps on S(θ) = mean of ⟨gᵢ, fᵢ(θ) - zᵢ⟩ + |fᵢ(θ) - zᵢ|² / 2η, for one call of the loss (Algorithm 1)."""

    closure = "samples"

    lr: float = param(1.0, "size of the inner steps; with armijo that of the first one tried", low=0, search=(1e-3, 10))
    eta: float = param(
        1.0, "step size η in the space of the outputs: 1 / L of the loss there", above=0, search=(0.1, 1e3)
    )
    m: int = param(10, "inner steps on one surrogate", low=1)
    inner: Literal["armijo", "sgd", "adam"] = param("armijo", "gradient descent by line search or as it is, or Adam")
    schedule: Literal["constant", "stochastic"] = param("constant", "how η falls: stochastic is η / √t")
    ada: bool = param(False, "each output has its own η / √(delta + the sum of its gradients' squares)")
    delta: float = param(1e-5, "start of that sum", above=0)

    def build(
        self, params: Iterable[Any], *, model: nn.Module | None = None, steps_per_epoch: int | None = None
    ) -> torch.optim.Optimizer:
        """Of an epoch's steps together the line search lets the step size grow 1.8 times; of one where none is told."""
        built = super().build(params, model=model)
        built.param_groups[0]["growth"] = GROW ** (1 / (steps_per_epoch or 1))
        return built

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        places = run.tensors(run.trained)  # the gradients are those of the inner steps
        # equivalent: 0 → 1: all tensors are as many steps old
        t = places[0].state["step"] if self.schedule == "stochastic" else 1
        surrogate, loss = self.surrogate(run, closure, self.eta / t**0.5)
        kind: Any = torch.optim.Adam if self.inner == "adam" else torch.optim.SGD
        inner = kind([{"params": [place.p], "lr": place.at.lr} for place in places])
        with buffers_kept(closure.model):  # until each backward pass is done
            for _ in range(self.m):
                with torch.enable_grad():
                    value = surrogate()
                    slopes = torch.autograd.grad(value, run.trained, materialize_grads=True)
                if vector.norm(slopes) <= FLAT:
                    break
                if self.inner == "armijo":
                    armijo(run, places, slopes, surrogate, value)
                    continue
                for place, x in zip(places, slopes, strict=True):
                    place.p.grad = x
                inner.step()
                inner.zero_grad()
        return loss

    def surrogate(self, run: WholeOptimizer, closure: Samples, eta: float) -> tuple[Surrogate, Tensor]:
        """S, which calls the model alone, and the loss; every pass has the same draws, the first moves the buffers."""
        anchors, losses = [], []
        # its buffers are kept by the step, until the backward pass is done
        look = repeatable(lambda: [closure.outputs(inputs) for inputs, _ in closure.batches], run.trained, None)
        for z, (_, targets) in zip(look(), closure.batches, strict=True):
            with torch.enable_grad():
                losses.append(closure.score(z.requires_grad_(), targets))
                (g,) = torch.autograd.grad(losses[-1], z)
            anchors.append((z, g, z.numel() // z.shape[-1]))
        if self.ada:
            squares = [(rows * g).square().flatten(0, -2).mean(0) for _, g, rows in anchors]
            run.common["sum"] = run.common.get("sum", self.delta) + torch.stack(squares).mean(0)  # (C,)
        scale = (run.common["sum"].sqrt() if self.ada else 1) / eta

        def surrogate() -> Tensor:
            pairs = [(now - z, g, rows) for now, (z, g, rows) in zip(look(), anchors, strict=True)]
            return torch.stack([(g * d + scale * d.square() / (2 * rows)).sum() for d, g, rows in pairs]).mean()

        return surrogate, torch.stack(losses).mean()


def armijo(
    run: WholeOptimizer, places: list[Place], slopes: tuple[Tensor, ...], surrogate: Surrogate, value: Tensor
) -> None:
    """One step of gradient descent: from 1.8^(1/steps of an epoch) of the last size down to where S falls enough."""
    share, before = run.common.get("share", 1.0) * run.param_groups[0]["growth"], [place.p.clone() for place in places]
    slope = torch.stack([place.at.lr * widen(x).square().sum() for place, x in zip(places, slopes, strict=True)]).sum()
    for trial in range(TRIALS):
        share *= SHRINK if trial else 1.0
        for place, old, x in zip(places, before, slopes, strict=True):
            place.p.copy_(old - share * place.at.lr * x)
        if surrogate() <= value - ENOUGH * share * slope:
            break
    run.common["share"] = share


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"sso": SSO}
