"""Spectral normalization: divide each weight by its largest singular value (Miyato et al., 2018, arXiv:1802.05957)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import Normalizer, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import weights
from paper_toolbox.kit.precision import exact
from torch import Tensor, nn

WARM_UP = 15  # power iterations when attached, as torch does; being registered is a first training pass


@dataclass(frozen=True, kw_only=True)
class SpectralNorm(Normalizer):
    """Parametrizes the weight of every linear and convolutional layer as W / σ(W)."""

    traits = ("weight_scale", "writes")

    n_power: int = param(1, "power iterations per forward pass in training", low=1)
    eps: float = param(1e-12, "smallest norm that is divided by", above=0)
    gain: bool = param(False, "learn a factor γ per layer: γ W / σ(W)")

    def apply(self, model: nn.Module) -> nn.Module:
        """Layers that have it already, and weights tied to another layer's, are left as they are."""
        if not weights.attach(model, Spectral, self._attached):
            raise NothingChanged(
                "spectral_norm found 0 layers: it looks for linear and convolutional ones that do not have it yet"
            )
        return model

    @torch.no_grad()
    def _attached(self, layer: Any) -> Spectral:
        axis = weights.output_axis(layer)
        matrix = weights.as_rows(layer.weight, axis)  # (O, I·K)
        rows, columns = matrix.shape
        made = Spectral(rows, columns, axis, self.n_power, self.eps, self.gain).to(matrix.device, matrix.dtype)
        made.iterate(matrix, WARM_UP)
        return made


class Spectral(nn.Module):
    """weight -> weight / σ, with σ = uᵀ W v; W (rows, columns) has the output units in its rows."""

    gain: nn.Parameter | None
    u: Tensor
    v: Tensor

    def __init__(
        self, rows: int, columns: int, axis: int = 0, n_power: int = 1, eps: float = 1e-12, gain: bool = False
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.axis, self.n_power, self.eps = rows, columns, axis, n_power, eps
        self.register_parameter("gain", nn.Parameter(torch.ones(())) if gain else None)
        self.register_buffer("u", nn.functional.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", nn.functional.normalize(torch.randn(columns), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weights.as_rows(weight, self.axis)
        with exact(weight):  # in bfloat16 σ would be wrong by up to 0.4 %
            if self.training:
                self.iterate(matrix, self.n_power)
            u, v = self.u.clone(), self.v.clone()  # a later forward pass overwrites them before this one's backward
            sigma = torch.dot(u, matrix @ v)
        sigma = torch.where(sigma.abs() > self.eps, sigma, self.eps)
        return weight / sigma if self.gain is None else weight * (self.gain / sigma)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    @torch.no_grad()
    def iterate(self, matrix: Tensor, times: int) -> None:
        """Algorithm 1. Differs: u is refreshed before v, as in torch; the paper's v first is half a step away."""
        for _ in range(times):
            self._refresh(self.u, matrix @ self.v)
            self._refresh(self.v, matrix.T @ self.u)

    def _refresh(self, vector: Tensor, new: Tensor) -> None:
        """A weight of zeros has no direction: the old one stays."""
        norm = new.norm()
        vector.copy_(torch.where(norm > self.eps, new / norm, vector))


@hookimpl
def normalizer() -> dict[str, type[Normalizer]]:
    return {"spectral_norm": SpectralNorm}
