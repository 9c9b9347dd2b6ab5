"""Statistics that torch leaves out."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's ρ of each sample; a, b (B, ...) -> (B,); 0 where one of them is constant."""
    x, y = (torch.stack([_ranks(row) for row in v.flatten(1)]) for v in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(scale > 0, (x * y).sum(1) / scale, 0)


def _ranks(row: Tensor) -> Tensor:
    """Ranks of the entries of row (E,); equal entries share their mean rank."""
    _, group, count = torch.unique(row, return_inverse=True, return_counts=True)
    mean: Tensor = (count.cumsum(0) - (count - 1) / 2)[group]
    return mean.double()
