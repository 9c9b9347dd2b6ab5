"""Masks that hold weights at zero: they survive training, saving and loading, and fold into plain weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import surgery

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Mask(nn.Module):
    """A parametrization: the weight where ``mask`` is true, zero (and no gradient) elsewhere."""

    mask: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)
        self.register_buffer("mask", torch.ones(self.shape, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)


def layers(model: nn.Module, skip: Collection[str] = ()) -> list[tuple[str, Any]]:
    """(path, layer) of each linear layer and convolution whose path contains no word of ``skip``.

    A weight that two layers share (an embedding tied to the head, say) is left out: a mask would part them.
    """
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    found = []
    for path, layer in surgery.find(model, (nn.Linear, *CONVOLUTIONS)):
        tied = not parametrize.is_parametrized(layer, "weight") and owners[id(layer.weight)] > 1
        if not tied and not any(word in path for word in skip):
            found.append((path, layer))
    return found


@torch.no_grad()
def attach(model: nn.Module, path: str, mask: Tensor) -> None:
    """Hold the weight at ``path`` at zero where ``mask`` (shape of the weight, bool) is false.

    A mask that is there already is narrowed.
    """
    layer: Any = model.get_submodule(path)
    if parametrize.is_parametrized(layer, "weight"):
        last = layer.parametrizations.weight[-1]
        if isinstance(last, Mask):
            last.mask &= mask.to(last.mask.device)
            return
    else:
        layer.weight.mul_(mask)
    new = Mask(mask.shape)
    new.mask.copy_(mask)
    surgery.parametrize(model, path, "weight", new.to(layer.weight.device))


def kept(scores: Tensor, count: int) -> Tensor:
    """Exactly ``count`` true entries, those of the highest scores; ties go to the later entry."""
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().argsort(stable=True)[: scores.numel() - count]] = False
    return mask.reshape(scores.shape)
