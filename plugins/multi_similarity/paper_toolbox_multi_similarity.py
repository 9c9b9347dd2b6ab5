"""Multi-similarity loss: mine the informative pairs of embeddings, weigh each by its own and others' similarity.

Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019, arXiv:1904.06627.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from paper_toolbox import Loss, hookimpl, param
from paper_toolbox.kit.precision import exact, widen
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MultiSimilarity(Loss):
    """The multi-similarity loss of the embeddings, plus the cross-entropy that teaches the classifier to read them."""

    traits = ("above_zero", "pairs")
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    alpha: float = param(2.0, "sharpness on pairs of one class", above=0)
    beta: float = param(50.0, "sharpness on pairs of two classes", above=0)
    base: float = param(0.5, "similarity that parts the two (λ)", low=-1, high=1)
    epsilon: float = param(0.1, "margin of the mining", low=0)
    # Differs: the paper trains embeddings only, without a classifier; with 0 this is its loss exactly
    ce_weight: float = param(1.0, "weight of the cross-entropy of the logits; 0: embeddings only", low=0)

    def __call__(self, logits: Tensor, targets: Tensor, *, features: Tensor) -> Tensor:
        """Mean over the batch. logits (B, C); targets (B,) int64; features (B, D), the embeddings."""
        e = F.normalize(widen(features), dim=1)
        with exact(e):
            similarity = e @ e.T  # (B, B)
        positives, negatives = mine(similarity, targets, self.epsilon)
        embedding = pair_loss(similarity, positives, negatives, self.alpha, self.beta, self.base)
        return embedding + self.ce_weight * F.cross_entropy(widen(logits), targets) if self.ce_weight else embedding


def mine(similarity: Tensor, targets: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The kept pairs (B, B), of one class and of two, row by row.

    A negative stays if it is nearly as similar as the least similar positive; a positive, if it is nearly as
    dissimilar as the most similar negative. An anchor without positives or without negatives keeps nothing.
    """
    same = targets[:, None] == targets
    positives, negatives = same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device), ~same
    hardest_positive = similarity.masked_fill(~positives, torch.inf).amin(1, keepdim=True)
    hardest_negative = similarity.masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
    # Differs from the authors' code, as pytorch-metric-learning does: positives of similarity 1 (duplicates) stay
    return positives & (similarity - epsilon < hardest_negative), negatives & (similarity + epsilon > hardest_positive)


def pair_loss(s: Tensor, positives: Tensor, negatives: Tensor, alpha: float, beta: float, base: float) -> Tensor:
    """log(1 + Σ exp(-α(s - λ)))/α over positives + log(1 + Σ exp(β(s - λ)))/β over negatives, mean over the anchors."""
    return (one_plus(-alpha * (s - base), positives) / alpha + one_plus(beta * (s - base), negatives) / beta).mean()


def one_plus(x: Tensor, kept: Tensor) -> Tensor:
    """log(1 + Σ exp x) over the kept entries of each row, (B, B) -> (B,)."""
    return torch.logsumexp(F.pad(x.masked_fill(~kept, -torch.inf), (1, 0)), 1)


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"multi_similarity": MultiSimilarity}
