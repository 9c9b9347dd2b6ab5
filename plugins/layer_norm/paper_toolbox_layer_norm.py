"""Layer normalization: standardize the units of a layer within each case (Ba et al., 2016, arXiv:1607.06450)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from paper_toolbox import Normalizer, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import norms, surgery
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Normalizer):
    """Replaces the norm layers of a model; a model without any gets one behind each hidden linear or conv layer."""

    traits = ("norm_layers",)

    eps: float = param(1e-5, "added to the variance", low=0)
    affine: bool = param(True, "learn a gain and a bias per unit")
    mode: Literal["sample", "position"] = param(
        "sample", "feature maps: statistics over channels and space, or over the channels of each position"
    )

    def apply(self, model: nn.Module) -> nn.Module:
        """A layer that is already what would be put in its place stays: so the second time nothing is left to do."""
        made = [(place, self._layer(place)) for place in norms.places(model, (PositionNorm,))]
        changes = [(place, layer) for place, layer in made if not equal(place.layer, layer)]
        if not changes:
            raise NothingChanged(
                "layer_norm found 0 layers: it looks for norm layers of torch that are not what it would put there, "
                "or, in a model without norm layers, for hidden linear and convolutional ones"
            )
        for place, layer in changes:
            norms.put(model, place, layer)
        return model

    def _layer(self, place: norms.Place) -> nn.Module:
        if not place.channels_first:
            return nn.LayerNorm(place.shape, self.eps, self.affine)
        if self.mode == "sample":
            return nn.GroupNorm(1, place.shape[0], self.eps, self.affine)  # one group: all of (C, *), gain per channel
        return PositionNorm(place.shape[0], self.eps, self.affine)


class PositionNorm(nn.Module):
    """x (N, C, *) -> the same shape, of mean 0 and variance 1 over the channels of every position."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_channels, self.eps, self.affine = num_channels, eps, affine
        self.register_parameter("weight", nn.Parameter(torch.ones(num_channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), (self.num_channels,), self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


def equal(old: nn.Module, new: nn.Module) -> bool:
    """Whether both are of one class, made with the same arguments; gain and bias may differ."""
    return type(old) is type(new) and surgery.arguments(old) == surgery.arguments(new)


@hookimpl
def normalizer() -> dict[str, type[Normalizer]]:
    return {"layer_norm": LayerNorm}
