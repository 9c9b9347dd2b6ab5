"""The pre-norm transformer block that ``vit`` and ``gpt`` share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention; x (B, T, width) -> same; ``allowed`` (B, 1, T, T) or ``causal`` limits who sees whom."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, allowed: Tensor | None = None, causal: bool = False) -> Tensor:
        q, k, v = (self._split(project(x)) for project in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(
            q, k, v, allowed, dropout_p=self.dropout if self.training else 0.0, is_causal=causal
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, width / heads)."""
        return torch.unflatten(x, 2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a four times wider perceptron, each after its own LayerNorm and beside a residual path."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.reduce = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, allowed: Tensor | None = None, causal: bool = False) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), allowed, causal))
        out: Tensor = x + self.drop(self.reduce(self.gelu(self.expand(self.norm2(x)))))
        return out
