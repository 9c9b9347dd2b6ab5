"""Magnitude pruning: the smallest weights become zero and stay zero (Han et al., 2015, arXiv:1506.02626)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from paper_toolbox import Compressor, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import sparsity
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MagnitudePruning(Compressor):
    """Masks the weights of least magnitude in linear layers and convolutions; biases and norms are never touched."""

    traits = ("masks",)

    sparsity: float = param(0.5, "share of the weights that becomes zero", low=0, below=1)
    scope: Literal["global", "layer"] = param("global", "what a weight is compared with")
    skip: tuple[str, ...] = param((), "parts of the paths of layers left alone")

    def compress(self, model: nn.Module) -> nn.Module:
        layers = sparsity.layers(model, self.skip)
        scores = [layer.weight.abs() for _, layer in layers]
        masks = self.masks(scores)
        if all(mask.all() for mask in masks):
            removed = f" and removed 0 weights at sparsity = {self.sparsity:g}" if layers else ""
            raise NothingChanged(
                f"magnitude_pruning found {len(layers)} layers{removed}: it looks for linear layers and convolutions "
                "whose weight no other layer shares"
            )
        for (path, _), mask in zip(layers, masks, strict=True):
            sparsity.attach(model, path, mask)
        return model

    def masks(self, scores: list[Tensor]) -> list[Tensor]:
        """True where a weight stays; the shapes of ``scores``."""
        if self.scope == "layer" or not scores:
            return [sparsity.kept(score, self._left(score.numel())) for score in scores]
        flat = torch.cat([score.flatten() for score in scores])
        parts = torch.split(sparsity.kept(flat, self._left(len(flat))), [score.numel() for score in scores])
        return [part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)]

    def _left(self, count: int) -> int:
        return count - round(self.sparsity * count)


@hookimpl
def compressor() -> dict[str, type[Compressor]]:
    return {"magnitude_pruning": MagnitudePruning}
