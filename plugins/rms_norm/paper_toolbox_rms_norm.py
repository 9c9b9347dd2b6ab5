"""RMSNorm: divide by the root mean square, without centring (Zhang & Sennrich, 2019, arXiv:1910.07467)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from paper_toolbox import Normalizer, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import norms
from paper_toolbox.kit.precision import widen
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class RMSNorm(Normalizer):
    """Replaces the norm layers of a model; a model without any gets one behind each hidden linear or conv layer."""

    eps: float = param(1e-6, "added to the mean square, or to its root", low=0)
    p: float | None = param(None, "share of the components under the mean square; none: all", above=0, high=1)
    bias: bool = param(False, "learn a bias too")
    eps_outside: bool = param(False, "add eps to the root (the authors' code), not under it (torch)")

    def apply(self, model: nn.Module) -> nn.Module:
        """Feature maps are normalized over the channels of each position. Applied again, it gives the same model."""
        places = norms.places(model, (RootMeanSquare,))
        if not places:
            raise NothingChanged(
                "rms_norm found 0 layers: it looks for the norm layers of torch, or, in a model without norm layers, "
                "for hidden linear and convolutional ones"
            )
        for place in places:
            fields = (self.eps, self.p, self.bias, self.eps_outside)
            norms.put(model, place, RootMeanSquare(place.shape, *fields, channels_first=place.channels_first))
        return model


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


@hookimpl
def normalizer() -> dict[str, type[Normalizer]]:
    return {"rms_norm": RMSNorm}
