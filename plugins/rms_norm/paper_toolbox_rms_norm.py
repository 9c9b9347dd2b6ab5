"""RMSNorm: divide by the root mean square, without centring (Zhang & Sennrich, 2019, arXiv:1910.07467)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from paper_toolbox import Normalizer, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import norms, surgery
from paper_toolbox.kit.precision import widen
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class RMSNorm(Normalizer):
    """Replaces the norm layers of a model; a model without any gets one behind each hidden linear or conv layer."""

    traits = ("norm_layers",)

    eps: float = param(1e-6, "added to the mean square, or to its root", low=0)
    p: float | None = param(None, "share of the components under the mean square; none: all", above=0, high=1)
    bias: bool = param(False, "learn a bias too")
    eps_outside: bool = param(False, "add eps to the root (the authors' code), not under it (torch)")

    def apply(self, model: nn.Module) -> nn.Module:
        """Feature maps: over the channels of each position. A layer that is already what would be put there stays."""
        made = [(place, self._layer(place)) for place in norms.places(model, (RootMeanSquare,))]
        changes = [(place, layer) for place, layer in made if not equal(place.layer, layer)]
        if not changes:
            raise NothingChanged(
                "rms_norm found 0 layers: it looks for norm layers of torch and for its own with other fields, or, "
                "in a model without norm layers, for hidden linear and convolutional ones"
            )
        for place, layer in changes:
            norms.put(model, place, layer)
        return model

    def _layer(self, place: norms.Place) -> RootMeanSquare:
        return RootMeanSquare(place.shape, self.eps, self.p, self.bias, self.eps_outside, place.channels_first)


class RootMeanSquare(nn.Module):
    """x (N, *, *normalized_shape), or (N, C, *) when ``channels_first`` -> gain · x / rms(x) + bias."""

    bias: nn.Parameter | None

    def __init__(
        self,
        normalized_shape: Sequence[int],
        eps: float = 1e-6,
        p: float | None = None,
        bias: bool = False,
        eps_outside: bool = False,
        channels_first: bool = False,
    ) -> None:
        super().__init__()
        self.normalized_shape = tuple(normalized_shape)
        self.eps, self.p, self.eps_outside, self.channels_first = eps, p, eps_outside, channels_first
        self.weight = nn.Parameter(torch.ones(self.normalized_shape))
        self.register_parameter("bias", nn.Parameter(torch.zeros(self.normalized_shape)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1) if self.channels_first else x
        y = self._normalized(widen(x)).to(x.dtype) * self.weight
        y = y if self.bias is None else y + self.bias
        return y.movedim(-1, 1) if self.channels_first else y

    def _normalized(self, x: Tensor) -> Tensor:
        """With ``p`` the first ⌊p·d⌋ of the d components, at least one, stand for all: pRMSNorm."""
        if self.p is None and not self.eps_outside:
            return F.rms_norm(x, self.normalized_shape, eps=self.eps)  # torch's fused kernel where there is one
        axes = len(self.normalized_shape)
        h = x.flatten(-axes)  # (..., d)
        if self.p is not None:
            h = h[..., : max(1, int(self.p * h.shape[-1]))]
        h = h[(..., *(None,) * axes, slice(None))]  # (..., 1, ..., 1, d): what is left of d broadcasts with x
        if self.eps_outside:
            rms: Tensor = torch.linalg.vector_norm(h, dim=-1) / h.shape[-1] ** 0.5 + self.eps
        else:
            rms = (h.square().mean(-1) + self.eps).sqrt()
        return x / rms


def equal(old: nn.Module, new: nn.Module) -> bool:
    """Whether both are of one class, made with the same arguments; gain and bias may differ."""
    return type(old) is type(new) and surgery.arguments(old) == surgery.arguments(new)


@hookimpl
def normalizer() -> dict[str, type[Normalizer]]:
    return {"rms_norm": RMSNorm}
