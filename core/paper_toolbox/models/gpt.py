"""A decoder-only transformer (Radford et al., 2019, GPT-2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..kinds import Model
from ..method import param
from ..task import Task
from .attention import Block
from .shapes import ordered, tokens


class Decoder(nn.Module):
    """ids (B, T) int64 -> (B, T, outputs), or, ``pooled``, (B, outputs) averaged over the unmasked positions.

    Differs from GPT-2: the head has its own weights, so that pruning one of the two layers leaves the other whole.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        outputs: int,
        pooled: bool,
    ) -> None:
        super().__init__()
        self.pooled = pooled
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.positions = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        return self.decode(ids, None)

    def decode(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """ids (B, T); mask (B, T): 1 where a token counts."""
        allowed = None if mask is None else _allowed(mask)
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, allowed, causal=mask is None)
        x = self.norm(x)
        if self.pooled:
            x = x.mean(1) if mask is None else _average(x, mask)
        out: Tensor = self.head(x)
        return out


class Masked(nn.Module):
    """A decoder that is told which tokens count; apart from it, so that each has one graph."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.decoder.decode(ids, mask)


def _allowed(mask: Tensor) -> Tensor:
    """mask (B, T) -> (B, 1, T, T): who may look at whom; each at itself, so that nobody looks at nothing."""
    square = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device)
    itself = square.tril() & square.triu()
    return square.tril() & mask[:, None, None, :].bool() | itself


def _average(x: Tensor, mask: Tensor) -> Tensor:
    """x (B, T, width), mask (B, T) -> (B, width)."""
    weight = mask.to(x.dtype)[:, :, None]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Gpt(Model):
    """Causal attention over token ids; for a class or a number per sequence the positions are averaged."""

    width: int = param(64, "width of a token", low=1)
    depth: int = param(2, "attention blocks", low=1)
    heads: int = param(4, "attention heads; must divide the width", low=1)
    dropout: float = param(0.0, "share dropped in training", low=0, below=1)

    def build(self, task: Task) -> nn.Module:
        specs = tokens(task, "gpt")
        if self.width % self.heads:
            raise ModelError(f"gpt: width = {self.width} must be a multiple of heads = {self.heads}")
        vocabulary, (length,) = specs[0].vocabulary or 1, specs[0].shape
        body = Decoder(
            vocabulary, length, self.width, self.depth, self.heads, self.dropout, task.outputs, task.kind != "tokens"
        )
        return ordered(task, specs, body if len(specs) == 1 else Masked(body))
