"""A small residual network (He et al., 2016, arXiv:1512.03385)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..kinds import Model
from ..method import param
from ..task import Task
from .shapes import image, ordered


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut; (B, before, H, W) -> (B, after, H / stride, W / stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """Images (B, C, H, W) -> (B, outputs): a stem, stages that halve the image and double the width, a pooled head."""

    def __init__(self, channels: int, width: int, depth: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages: list[nn.Module] = []
        before = width
        for stage in range(depth):
            for block in range(blocks):
                after = width * 2**stage
                stages.append(Residual(before, after, 2 if stage and not block else 1))
                before = after
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.stages(self.stem(x))).flatten(1))
        return out


@dataclass(frozen=True, kw_only=True)
class Cnn(Model):
    """Residual blocks with BatchNorm, global average pooling, one linear head."""

    width: int = param(32, "channels of the first stage; each further stage has twice as many", low=1)
    depth: int = param(3, "stages; each but the first halves the image", low=1)
    blocks: int = param(1, "residual blocks of a stage", low=1)

    def build(self, task: Task) -> nn.Module:
        spec = image(task, "cnn")
        return ordered(task, [spec], ResidualNet(spec.shape[0], self.width, self.depth, self.blocks, task.outputs))
