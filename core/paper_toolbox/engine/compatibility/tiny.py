"""Something small to train on where only the going counts: images, and a network with all kinds of layers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from ...kit.batch import Inputs
from ...task import Task
from ..data.open_data import Data, open_data
from ..data.parts import Columns, Part

SIZE = 64  # samples to train on; a third as many to evaluate on
SOURCES = {
    "classification": "paper_toolbox.engine.compatibility.tiny:classes",
    "regression": "paper_toolbox.engine.compatibility.tiny:values",
}
MODEL = "paper_toolbox.engine.compatibility.tiny:network"


class Some(Part):
    """The samples at ``index`` (N,) of another part."""

    def __init__(self, part: Part, index: Tensor) -> None:
        self.part, self.index, self.targets = part, index, part.targets[index]

    def take(self, index: Tensor) -> tuple[Inputs, Tensor]:
        return self.part.take(self.index[index])


def few(data: Data, count: int = SIZE) -> Data:
    """``data`` with at most ``count`` samples to train on, and a third as many to evaluate on."""
    return replace(data, train=_few(data.train, count), validation=_few(data.validation, count // 3))


def _few(part: Part, count: int) -> Part:
    return Some(part, torch.linspace(0, len(part) - 1, min(count, len(part))).long())


@cache
def classes() -> Data:
    """Digits (1, 8, 8) and their ten classes."""
    return few(open_data("digits"))


@cache
def values() -> Data:
    """Digits, and the brightness of their upper and lower half."""
    data = classes()
    task = Task("regression", data.task.inputs, 2)
    return replace(data, task=task, train=_bright(data.train), validation=_bright(data.validation))


def _bright(part: Part) -> Part:
    images, _ = part.take(torch.arange(len(part)))
    assert isinstance(images, Tensor), "digits are images"
    halves = torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, dim=2)], 1)
    return Columns({"image": images}, {}, halves, "tensor")


def network(task: Task) -> nn.Module:
    """Two convolutions, a norm, two linear layers, and a weight of low rank: something to do for every method."""
    channels, second = task.inputs[0].shape[0], nn.Conv2d(4, 8, 3, 1, 1)
    with torch.no_grad():
        second.weight.copy_((torch.randn(8, 2) @ torch.randn(2, 36) / 9).view_as(second.weight))
    convolutions = (nn.Conv2d(channels, 4, 3, 2, 1), nn.GroupNorm(2, 4), nn.ReLU(), second, nn.ReLU())
    linear = (nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, task.outputs))
    return nn.Sequential(*convolutions, *linear)
