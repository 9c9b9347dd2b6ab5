"""A multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from ..kinds import Model
from ..method import param
from ..task import Task
from .shapes import numbers, ordered


class Perceptron(nn.Module):
    """Inputs (B, ...), flattened -> (B, outputs)."""

    def __init__(self, features: int, hidden: int, depth: int, dropout: float, outputs: int) -> None:
        super().__init__()
        widths = [features] + [hidden] * depth
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(x.flatten(1)))
        return out


class Joined(nn.Module):
    """Several inputs, flattened and laid side by side for one body."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.body(torch.cat([x.flatten(1) for x in inputs], 1))
        return out


@dataclass(frozen=True, kw_only=True)
class Mlp(Model):
    """Linear layers with ReLU; images are flattened, several inputs laid side by side."""

    hidden: int = param(128, "units of a hidden layer", low=1)
    depth: int = param(2, "hidden layers", low=0)
    dropout: float = param(0.0, "share of hidden units dropped in training", low=0, below=1)

    def build(self, task: Task) -> nn.Module:
        specs = numbers(task, "mlp")
        features = sum(prod(spec.shape) for spec in specs)
        body: nn.Module = Perceptron(features, self.hidden, self.depth, self.dropout, task.outputs)
        return ordered(task, specs, body if len(specs) == 1 else Joined(body))
