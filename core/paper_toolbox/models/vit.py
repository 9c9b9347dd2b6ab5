"""A vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929)."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..kinds import Model
from ..method import param
from ..task import Task
from .attention import Block
from .shapes import image, ordered


class VisionTransformer(nn.Module):
    """Images (B, C, H, W) -> (B, outputs). Differs: the tokens are averaged, there is no class token."""

    def __init__(
        self, size: tuple[int, int, int], patch: int, width: int, depth: int, heads: int, dropout: float, outputs: int
    ) -> None:
        super().__init__()
        channels, height, breadth = size
        count = (height // patch) * (breadth // patch)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, count, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (B, T, width)
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return out


@dataclass(frozen=True, kw_only=True)
class Vit(Model):
    """Patches, learned positions, pre-norm attention blocks with LayerNorm, averaged tokens."""

    patch: int | None = param(None, "side of a patch; none: a quarter of the image's side", low=1)
    width: int = param(64, "width of a token", low=1)
    depth: int = param(4, "attention blocks", low=1)
    heads: int = param(4, "attention heads; must divide the width", low=1)
    dropout: float = param(0.0, "share dropped in training", low=0, below=1)

    def build(self, task: Task) -> nn.Module:
        spec = image(task, "vit")
        channels, height, breadth = spec.shape
        if self.width % self.heads:
            raise ModelError(f"vit: width = {self.width} must be a multiple of heads = {self.heads}")
        sides = [p for p in range(1, gcd(height, breadth) + 1) if not gcd(height, breadth) % p]
        patch = self.patch or max(p for p in sides if p == 1 or 4 * p <= min(height, breadth))
        if patch not in sides:
            raise ModelError(
                f"vit: patch = {patch} does not divide an image of {height} × {breadth}; choose from {sides}"
            )
        size = (channels, height, breadth)
        return ordered(
            task, [spec], VisionTransformer(size, patch, self.width, self.depth, self.heads, self.dropout, task.outputs)
        )
