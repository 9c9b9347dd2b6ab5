"""SinKD: distil a teacher by the Sinkhorn distance between a batch of its outputs and the student's.

Cui et al., "Sinkhorn Distance Minimization for Knowledge Distillation", LREC-COLING 2024, arXiv:2402.17110.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from paper_toolbox import Loss, hookimpl, param
from paper_toolbox.kit.precision import exact, widen
from torch import Tensor

# equivalent: 0.05 → 0.1: above it both ways give the same plan, below it only one is safe in float32
PLAIN = 0.05  # costs reach 2: from this λ on exp(-2/λ) and its inverse are far from the ends of float32


@dataclass(frozen=True, kw_only=True)
class SinKD(Loss):
    """Cross-entropy, the teacher's cross-entropy, and the cost of carrying one batch of outputs into the other."""

    traits = ("above_zero", "no_forward", "no_second", "pairs")

    tau: float = param(2.0, "softens the outputs compared by the Sinkhorn distance", above=0)
    lam: float = param(0.1, "entropic regularization of the plan (λ)", above=0)
    iters: int = param(20, "Sinkhorn iterations", low=1)
    alpha: float = param(0.9, "share of the teacher's cross-entropy against the labels'", low=0, high=1)
    beta: float = param(0.8, "weight of the Sinkhorn distance", low=0)
    scale: float = param(0.001, "unit of the Sinkhorn distance: the authors sum over the batch", low=0)
    temperature: float = param(1.0, "softens the outputs in the teacher's cross-entropy", above=0)
    reduction: Literal["sum", "mean"] = param("sum", "Sinkhorn distance of the whole batch, or per sample")

    def __call__(self, logits: Tensor, targets: Tensor, *, teacher_logits: Tensor) -> Tensor:
        """A scalar. logits, teacher_logits (B, C); targets (B,) int64, or (B, C) probabilities."""
        z_s, z_t = widen(logits), widen(teacher_logits).detach()
        soft = F.cross_entropy(z_s / self.temperature, F.softmax(z_t / self.temperature, 1))
        distance = sinkhorn_distance(F.softmax(z_s / self.tau, 1), F.softmax(z_t / self.tau, 1), self.lam, self.iters)
        share = len(logits) if self.reduction == "mean" else 1
        hard = F.cross_entropy(z_s, targets)
        return (1 - self.alpha) * hard + self.alpha * soft + self.beta * self.scale * distance / share


def sinkhorn_distance(p_s: Tensor, p_t: Tensor, lam: float, iters: int) -> Tensor:
    """Σ P_ij D_ij of the plan between the rows of p_s (B, C) and p_t (B, C), D their L1 distances."""
    cost = torch.cdist(p_s, p_t, p=1)  # (B, B)
    return (plan(cost, lam, iters) * cost).sum()


def plan(cost: Tensor, lam: float, iters: int) -> Tensor:
    """exp(-cost / λ) with rows and then columns divided by their sums, ``iters`` times; its columns sum to one.

    Only the two scalings (B,) go through the iterations, so that the matrix is kept once for the backward pass.
    """
    if lam >= PLAIN:
        kernel, v = torch.exp(-cost / lam), torch.ones_like(cost[0])
        with exact(cost):
            for _ in range(iters):
                u = 1 / (kernel @ v)
                v = 1 / (kernel.T @ u)
        return u[:, None] * kernel * v
    # equivalent: zeros_like → ones_like: the first division of the rows takes a common factor away
    log_kernel, g = -cost / lam, torch.zeros_like(cost[0])
    for _ in range(iters):
        f = -torch.logsumexp(log_kernel + g, 1)
        g = -torch.logsumexp(log_kernel + f[:, None], 0)
    return torch.exp(f[:, None] + log_kernel + g)


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"sinkd": SinKD}
