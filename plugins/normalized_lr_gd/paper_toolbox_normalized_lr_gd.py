"""Normalized logistic regression: the gradient over the mean doubt, so that late steps are as long as early ones.

Tyurin, "From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with Large Step Sizes", 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.whole import Whole, WholeOptimizer
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NormalizedLRGD(Whole):
    """w ← w - γ β ∇f, where 1/β is the mean of 1 - p_y over the samples; for cross-entropy."""

    traits = ("classes",)
    closure = "samples"

    lr: float = param(10.0, "step size γ; large ones are meant", low=0, search=(0.01, 1000.0))
    beta_max: float = param(1e6, "largest β; beyond it float32 gradients are rounding noise", above=0)

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        trained = run.trained
        total, loss, doubts = [torch.zeros_like(p) for p in trained], torch.zeros((), device=trained[0].device), []
        count = sum(len(targets) for _, targets in closure.batches)
        for inputs, targets in closure.batches:
            with torch.enable_grad():
                outputs = closure.outputs(inputs)
            doubts.append(log_doubt(outputs, targets))
            with torch.enable_grad():
                part = closure.score(outputs, targets) * (len(targets) / count)
                grads = torch.autograd.grad(part, trained, materialize_grads=True)
            for x, g in zip(total, grads, strict=True):
                x.add_(g)
            loss = loss + part
        beta = self.beta(torch.cat(doubts))
        for place in run.tensors(total):
            place.p.sub_(widen(place.grad) * beta.to(place.p.device), alpha=place.at.lr)
        return loss

    def beta(self, doubts: Tensor) -> Tensor:
        """β = n / Σ (1 - p_y), from their logarithms, (n,); ()."""
        return (math.log(len(doubts)) - doubts.logsumexp(0)).exp().clamp(max=self.beta_max)


def log_doubt(outputs: Tensor, targets: Tensor) -> Tensor:
    """log(1 - p_y) of each sample, which does not cancel. outputs (N, C), targets (N,) int64 -> (N,)."""
    if outputs.ndim != 2 or targets.ndim != 1 or targets.is_floating_point():
        found = f"{targets.dtype} of shape {tuple(targets.shape)} for outputs of shape {tuple(outputs.shape)}"
        raise NeedError(
            f"NormalizedLRGD takes outputs (N, C) and one class per sample, targets (N,) int64, not {found}: "
            "use classification data"
        )
    label = targets[:, None]
    others = outputs.scatter(1, label, -math.inf).logsumexp(1)
    return -F.softplus(outputs.gather(1, label)[:, 0] - others)


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"normalized_lr_gd": NormalizedLRGD}
