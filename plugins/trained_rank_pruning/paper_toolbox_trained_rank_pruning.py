"""Trained rank pruning: train, and every few steps project to low rank (Xu et al., 2018, arXiv:1812.02402)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal

import torch
from paper_toolbox import Compressor, hookimpl, param
from paper_toolbox.errors import DataError, NothingChanged
from paper_toolbox.kit import lowrank, surgery
from paper_toolbox.kit.batch import Inputs, forward
from paper_toolbox.kit.precision import widen
from torch import Tensor, nn
from torch.nn.utils import parametrize

Batches = Iterable[tuple[Inputs, Tensor]]
Layers = list[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TrainedRankPruning(Compressor):
    """Trains the model towards low rank, then splits every layer where that saves parameters; no fine-tuning after.

    Differs: the training starts from the given model, lr falls along a cosine, and strided layers are split as well.
    """

    traits = ("low_rank",)
    period: int = param(20, "steps from one projection to the next", low=1)
    energy: float = param(0.98, "share of the squared singular values that a projection keeps", above=0, high=1)
    lam: float = param(3e-4, "weight of the nuclear norm's sub-gradient", low=0)
    scheme: Literal["nc", "vh"] = param("nc", "nc: k filters, then 1×1; vh: vertical, then horizontal filters")
    value_threshold: float = param(0.05, "singular values below it are dropped at the end", low=0)
    epochs: int = param(10, "passes over the batches", low=0)
    lr: float = param(0.01, "SGD's step size at the start", low=0)
    momentum: float = param(0.9, "SGD's momentum", low=0, below=1)
    weight_decay: float = param(1e-4, "SGD's weight decay", low=0)
    linear: bool = param(False, "also linear layers, except the classifier")

    def compress(self, model: nn.Module, *, batches: Batches, loss: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
        layers = targets(model, self.linear)
        if not layers:
            what = "convolutions larger than 1×1 behind the first" + (", and linear layers" if self.linear else "")
            raise NothingChanged(f"trained_rank_pruning found 0 layers: it looks for {what}")
        for path, layer in layers:
            if parametrize.is_parametrized(layer, "weight"):
                surgery.unparametrize(model, path, "weight")
        modes = {path: layer.training for path, layer in model.named_modules()}
        self.train(model.train(), layers, batches, loss)
        for path, layer in model.named_modules():
            layer.training = modes[path]
        return self.split(model, layers)

    def train(self, model: nn.Module, layers: Layers, batches: Batches, loss: Callable[..., Tensor]) -> None:
        """SGD; every ``period`` steps the weights are replaced by their projection, and its sub-gradient is added."""
        sgd = torch.optim.SGD(model.parameters(), momentum=self.momentum, weight_decay=self.weight_decay)
        step = 0
        for epoch in range(self.epochs):
            sgd.param_groups[0]["lr"] = self.lr * (1 + cos(pi * epoch / self.epochs)) / 2
            for inputs, wanted in batches:
                pushes = [self.push(layer) for _, layer in layers] if step % self.period == 0 else []
                sgd.zero_grad()
                with torch.enable_grad():
                    loss(forward(model, inputs), wanted).backward()  # type: ignore[no-untyped-call]  # torch's own
                for (_, layer), push in zip(layers, pushes, strict=False):
                    if layer.weight.grad is not None:
                        layer.weight.grad.add_(push, alpha=self.lam)
                sgd.step()
                # equivalent: += → -=: the period divides -step where it divides step
                step += 1
        sgd.zero_grad()
        if self.epochs and not step:
            raise DataError("trained_rank_pruning needs batches of training data")

    def push(self, layer: Any) -> Tensor:
        """Project the layer; the nuclear norm's sub-gradient U Vᵀ there, like the weight."""
        u, _, vh = self.project(layer)
        return lowrank.unmatrix(u @ vh, layer.weight.shape, self.scheme)

    @torch.no_grad()
    def project(self, layer: Any, threshold: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Lower the rank of the layer's weight in place; its U (R, k), s (k,), Vᵀ (k, C).

        k is the least rank that keeps ``energy``, or less where singular values fall below ``threshold``.
        """
        u, s, vh = torch.linalg.svd(widen(lowrank.matrix(layer.weight, self.scheme)), full_matrices=False)
        kept = s.square().cumsum(0)
        k = int((kept < self.energy * kept[-1]).sum()) + 1
        k = max(min(k, int((s >= threshold).sum())), 1)
        u, s, vh = u[:, :k], s[:k], vh[:k]
        layer.weight.copy_(lowrank.unmatrix((u * s) @ vh, layer.weight.shape, self.scheme))
        return u, s, vh

    def split(self, model: nn.Module, layers: Layers) -> nn.Module:
        """Project once more, then replace each layer whose two factors are smaller; the outputs stay the same."""
        ranks, changed = [], False
        for path, layer in layers:
            u, s, vh = self.project(layer, self.value_threshold)
            ranks.append(f"{path} {len(s)}")
            if lowrank.pays(len(s), len(u), vh.shape[1]):
                factors = lowrank.factorized(layer, u * s.sqrt(), s.sqrt()[:, None] * vh, self.scheme)
                surgery.replace(model, path, factors)
                changed = True
        if not changed:
            raise NothingChanged(f"trained_rank_pruning split 0 layers: their ranks are too high ({', '.join(ranks)})")
        return model


def targets(model: nn.Module, linear: bool = False) -> Layers:
    """Convolutions larger than 1×1, except the first one; with ``linear`` also linear layers but the last."""
    found = lowrank.layers(model, ("classifier",))
    convolutions = [(p, m) for p, m in found if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    return convolutions[1:] + [(p, m) for p, m in found if linear and isinstance(m, nn.Linear)]


@hookimpl
def compressor() -> dict[str, type[Compressor]]:
    return {"trained_rank_pruning": TrainedRankPruning}
