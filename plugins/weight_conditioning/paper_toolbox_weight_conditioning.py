"""Weight conditioning: equilibrate the rows of each weight matrix (Saratchandran et al., 2024, arXiv:2409.03424)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from paper_toolbox import Normalizer, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import weights
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class WeightConditioning(Normalizer):
    """Parametrizes the weight of every linear and convolutional layer as E W, E = diag(1 / ‖W_i‖)."""

    traits = ("fixed_length", "weight_scale")

    mode: Literal["row", "column", "row_column"] = param(
        "row", "what gets equal length: rows, columns, or rows and then columns"
    )
    rounds: int = param(1, "times that row_column alternates", low=1)
    scale: float = param(1.0, "length given to each row (or column)", above=0)
    eps: float = param(1e-8, "smallest norm that is divided by", above=0)
    detach: bool = param(False, "treat E as a constant in the backward pass")
    last: bool = param(True, "condition the output layer too")

    def apply(self, model: nn.Module) -> nn.Module:
        """Layers that have it already, and weights tied to another layer's, are left as they are."""
        if not weights.attach(model, Equilibrated, self._attached, last=self.last):
            raise NothingChanged(
                "weight_conditioning found 0 layers: it looks for linear and convolutional ones that do not have it yet"
            )
        return model

    def _attached(self, layer: Any) -> Equilibrated:
        axis = weights.output_axis(layer)
        return Equilibrated(self.mode, axis, self.rounds, self.scale, self.eps, self.detach)


class Equilibrated(nn.Module):
    """weight -> the same shape; its 2-D view, output units in the rows, has rows (or columns) of length ``scale``."""

    def __init__(
        self,
        mode: str = "row",
        axis: int = 0,
        rounds: int = 1,
        scale: float = 1.0,
        eps: float = 1e-8,
        detach: bool = False,
    ) -> None:
        super().__init__()
        self.mode, self.axis, self.rounds = mode, axis, rounds
        self.scale, self.eps, self.detach = scale, eps, detach

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weights.as_rows(weight, self.axis)  # (O, I·K)
        dims = {"row": [1], "column": [0], "row_column": [1, 0] * self.rounds}[self.mode]
        for dim in dims:
            matrix = self._equilibrate(matrix, dim)
        shape = weight.movedim(self.axis, 0).shape
        return self.scale * matrix.reshape(shape).movedim(0, self.axis)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def _equilibrate(self, matrix: Tensor, dim: int) -> Tensor:
        """Lines of length 1: by Van der Sluis within √rows of the best diagonal preconditioner."""
        norm: Tensor = torch.linalg.vector_norm(matrix, dim=dim, keepdim=True).clamp_min(self.eps)
        return matrix / (norm.detach() if self.detach else norm)


@hookimpl
def normalizer() -> dict[str, type[Normalizer]]:
    return {"weight_conditioning": WeightConditioning}
