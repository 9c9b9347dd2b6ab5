"""FWSVD: low rank where the loss does not look (Hsu et al., 2022, arXiv:2207.00112); and plain truncated SVD."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import Compressor, hookimpl, param
from paper_toolbox.errors import DataError, NothingChanged
from paper_toolbox.kit import lowrank, surgery
from paper_toolbox.kit.batch import Inputs, apply, size
from paper_toolbox.kit.persample import sample_gradients
from torch import Tensor, nn

Batches = Iterable[tuple[Inputs, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Fwsvd(Compressor):
    """Truncated SVD of every layer, its inputs weighted by their Fisher information.

    Differs: convolutions are factorized too, with the patches they read as inputs; ``convolutions`` switches it off.
    """

    traits = ("low_rank",)
    ratio: float = param(0.33, "share of a layer's parameters that is kept", above=0, high=1)
    n_samples: int = param(2048, "samples whose gradients are looked at", low=1)
    floor: float = param(1e-8, "least weight of an input, relative to the largest", above=0, high=1)
    skip: tuple[str, ...] = param(("embedding", "classifier"), "parts of paths left alone; classifier: the last linear")
    convolutions: bool = param(True, "also factorize 2-D convolutions")

    def compress(self, model: nn.Module, *, batches: Batches, loss: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
        layers = chosen("fwsvd", model, self.ratio, self.skip, self.convolutions)
        fisher = fisher_rows(model, [layer for _, layer in layers], batches, loss, self.n_samples)
        for path, layer in layers:
            cut(model, path, layer, importance(fisher[layer], self.floor), self.ratio)
        return model


@dataclass(frozen=True, kw_only=True)
class Svd(Compressor):
    """The baseline: every layer becomes two smaller ones that keep the largest singular values of its matrix."""

    traits = ("low_rank",)
    ratio: float = param(0.33, "share of a layer's parameters that is kept", above=0, high=1)
    skip: tuple[str, ...] = param(("embedding", "classifier"), "parts of paths left alone; classifier: the last linear")
    convolutions: bool = param(True, "also factorize 2-D convolutions")

    def compress(self, model: nn.Module) -> nn.Module:
        for path, layer in chosen("svd", model, self.ratio, self.skip, self.convolutions):
            cut(model, path, layer, torch.ones(()), self.ratio)
        return model


def chosen(name: str, model: nn.Module, ratio: float, skip: Sequence[str], convolutions: bool) -> list[tuple[str, Any]]:
    """(path, layer) of the layers that two factors make smaller."""
    layers = lowrank.layers(model, skip, convolutions)
    weights = {path: layer.weight.flatten(1) for path, layer in layers}
    found = [(p, layer) for p, layer in layers if lowrank.pays(rank(ratio, weights[p]), *weights[p].shape)]
    if not found:
        what = f"linear layers{' and 2-D convolutions' if convolutions else ''} that shrink at ratio = {ratio:g}"
        raise NothingChanged(f"{name} found 0 layers: it looks for {what}, and skips {', '.join(skip) or 'none'}")
    return found


def rank(ratio: float, w: Tensor) -> int:
    """The largest rank whose two factors hold at most ``ratio`` of the entries of w (O, I)."""
    return int(ratio * w.numel() / sum(w.shape))


def importance(fisher: Tensor, floor: float) -> Tensor:
    """The diagonal of D (I,), at least ``floor`` of its largest entry; without any gradient all inputs are alike."""
    d = fisher.sqrt()
    return d.clamp(min=floor * d.max()) if d.any() else torch.ones_like(d)


@torch.no_grad()
def cut(model: nn.Module, path: str, layer: Any, d: Tensor, ratio: float) -> None:
    """Replace the layer at ``path``, its inputs weighted by d, (I,) or ()."""
    w = lowrank.matrix(layer.weight)  # (O, I)
    a, b = weighted_svd(w.T, d.to(w.device), rank(ratio, w))
    surgery.replace(model, path, lowrank.factorized(layer, b.T, a.T))


def weighted_svd(w: Tensor, d: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The a (I, r), b (r, O) that minimise ‖D (w - a b)‖ (sec. 3.2); w (I, O), d (I,) or ()."""
    b = torch.linalg.svd(d.double().reshape(-1, 1) * w.double(), full_matrices=False)[2][:rank]
    return w.double() @ b.T, b  # D⁻¹ U S = W V, without dividing by the floor


def fisher_rows(
    model: nn.Module, layers: Sequence[nn.Module], batches: Batches, loss: Callable[..., Tensor], n_samples: int
) -> dict[nn.Module, Tensor]:
    """The empirical Fisher information of each layer's inputs, summed over its outputs (eq. 6): layer -> (I,)."""
    total, seen = {layer: torch.zeros((), dtype=torch.float64) for layer in layers}, 0
    for inputs, targets in batches:
        if seen >= n_samples:
            break
        count = min(size(inputs), n_samples - seen)
        part = apply(lambda x, n=count: x[:n], inputs)  # type: ignore[misc]  # n is bound at once
        for layer, (x, g) in sample_gradients(model, layers, part, targets[:count], loss).items():
            total[layer] = total[layer].to(x.device) + squared_rows(x, g).double()
        seen += count
    if not seen:
        raise DataError("fwsvd needs at least one batch of training data")
    return {layer: rows / seen for layer, rows in total.items()}


def squared_rows(x: Tensor, g: Tensor) -> Tensor:
    """Sum over samples and outputs of the squared gradients (xᵀ g)²; x (B, T, I), g (B, T, O) -> (I,)."""
    if x.shape[1] > x.shape[2]:  # either way holds no more entries than x or g
        return (x.transpose(1, 2) @ g).square().sum((0, 2))
    return (x * (g @ g.transpose(1, 2) @ x)).sum((0, 1)).clamp(min=0)


@hookimpl
def compressor() -> dict[str, type[Compressor]]:
    return {"fwsvd": Fwsvd, "svd": Svd}
