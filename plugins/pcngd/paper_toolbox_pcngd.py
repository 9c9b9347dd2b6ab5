"""Per-class normalized gradient descent: every class pulls with the same strength, however few its samples.

Francazi et al., "A Theoretical Analysis of the Learning Dynamics under Class Imbalance", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit import vector
from paper_toolbox.kit.batch import apply
from paper_toolbox.kit.persample import apart
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.whole import Whole, WholeOptimizer
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PCNGD(Whole):
    """w ← w - η Σ_c ∇f_c / |∇f_c|, where f_c is the part of the loss that class c has (section 4)."""

    traits = ("apart", "classes")
    closure = "samples"

    lr: float = param(1e-2, "step size η", low=0, search=(1e-4, 1.0))
    eps: float = param(1e-6, "added to the norm of each class's gradient", low=0)

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        """Classes go forward apart, so each sample once; a class that the step's samples lack is left out."""
        apart(closure.model)
        trained = run.trained
        total, loss = [torch.zeros_like(widen(p)) for p in trained], torch.zeros((), device=trained[0].device)
        for label in labels(closure):
            part, grads = of_class(closure, trained, label)
            norm = vector.norm(grads)
            for x, g in zip(total, grads, strict=True):
                x.add_(g / (norm + self.eps).to(g.device))
            loss = loss + part
        for place in run.tensors(total):
            place.p.sub_(place.grad, alpha=place.at.lr)
        return loss


def labels(samples: Samples) -> list[int]:
    """The classes among the targets."""
    given = [targets for _, targets in samples.batches]
    for x in given:
        if x.ndim != 1 or x.is_floating_point():
            found = f"{x.dtype} of shape {tuple(x.shape)}"
            raise NeedError(
                f"PCNGD takes one class per sample, targets (N,) int64, not {found}: use classification data"
            )
    return sorted(set(torch.cat(given).tolist()))


def of_class(samples: Samples, params: Sequence[Tensor], label: int) -> tuple[Tensor, list[Tensor]]:
    """f_c, the losses of the class over the number of all samples, and its gradients, in float32 or wider."""
    count = sum(len(targets) for _, targets in samples.batches)
    value, grads = torch.zeros((), device=params[0].device), [torch.zeros_like(widen(p)) for p in params]
    for inputs, targets in samples.batches:
        mine = (targets == label).nonzero()[:, 0]
        if not len(mine):
            continue
        with torch.enable_grad():
            outputs = samples.outputs(apply(lambda x, mine=mine: x[mine], inputs))  # type: ignore[misc]  # mine is bound at once
            part = samples.score(outputs, targets[mine]) * (len(mine) / count)
            found = torch.autograd.grad(part, params, materialize_grads=True)
        for x, g in zip(grads, found, strict=True):
            x.add_(g)
        value = value + part
    return value, grads


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"pcngd": PCNGD}
