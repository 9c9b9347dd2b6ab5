"""Random pruning: choose each layer's density, draw the positions (Liu et al., 2022, arXiv:2202.02643)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from paper_toolbox import Compressor, hookimpl, param
from paper_toolbox.errors import NeedError, NothingChanged, ParamError
from paper_toolbox.kit import sparsity
from paper_toolbox.kit.batch import Inputs, forward
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

Batch = tuple[Inputs, Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[Batch] | None
Draws = torch.Generator | None


@dataclass(frozen=True, kw_only=True)
class RandomPruning(Compressor):
    """Keeps random weights of linear layers and convolutions: of a fresh model, to be trained, or of a trained one."""

    traits = ("fresh", "masks")
    density: float = param(0.2, "share of the weights that is kept", above=0, high=1)
    distribution: Literal["uniform", "uniform_plus", "er", "erk", "snip", "grasp"] = param("erk", "layer densities")
    exact: bool = param(True, "keep exactly the share of each layer; false: each weight by its own coin, as released")
    min_last_density: float = param(0.2, "uniform_plus: least density of the last linear layer", low=0, high=1)
    seed: int | None = param(None, "of the positions; none takes the run's", low=0)

    def compress(
        self, model: nn.Module, *, batches: Batches = None, loss: Criterion | None = None, generator: Draws = None
    ) -> nn.Module:
        layers = sparsity.layers(model)
        if not layers or self.density == 1:
            raise NothingChanged(f"random_pruning thins 0 of {len(layers)} layers, at density {self.density:g}")
        densities = self.densities([layer for _, layer in layers])
        if self.distribution in ("snip", "grasp"):
            batch = next(iter(batches or ()), None)
            if batch is None or loss is None:
                raise NeedError(f"random_pruning needs batches and a loss for distribution = {self.distribution}")
            densities = self.sensitive(model, [path for path, _ in layers], batch, loss)
        if generator is None or self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed or 0)
        for (path, layer), p in zip(layers, densities, strict=True):
            noise = torch.rand(layer.weight.shape, generator=generator)
            mask = sparsity.kept(noise, round(p * noise.numel())) if self.exact else noise < p
            sparsity.attach(model, path, mask.to(layer.weight.device))
        return model

    def densities(self, layers: Sequence[Any]) -> list[float]:
        """The density of each layer, from the shapes of the weights."""
        shapes = [tuple(layer.weight.shape) for layer in layers]
        if self.distribution == "uniform_plus":
            return self.uniform_plus(layers, [prod(shape) for shape in shapes])
        if self.distribution in ("er", "erk"):
            return erdos_renyi(shapes, self.density, 2 if self.distribution == "er" else None)
        return [self.density] * len(shapes)

    def uniform_plus(self, layers: Sequence[Any], n: Sequence[int]) -> list[float]:
        """The first convolution dense, the last linear layer at least so dense, the others alike."""
        first = [i for i, layer in enumerate(layers) if isinstance(layer, sparsity.CONVOLUTIONS)][:1]
        last = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear)][-1:]
        fixed = dict.fromkeys(first, 1.0) | dict.fromkeys(last, max(self.density, self.min_last_density))
        # Differs: what is left is shared by the other weights; released, by all weights, and the total falls short.
        left = self.density * sum(n) - sum(n[i] * p for i, p in fixed.items())
        if left < 0:
            raise ParamError(f"random_pruning.density = {self.density:g}: uniform_plus needs more for two layers alone")
        free = sum(n) - sum(n[i] for i in fixed)
        return [fixed[i] if i in fixed else left / free for i in range(len(n))]

    def sensitive(self, model: nn.Module, paths: Sequence[str], batch: Batch, loss: Criterion) -> list[float]:
        """The share of each layer among the weights that SNIP or GraSP would keep."""
        # SDPA: the other kernels have no second derivative. Cached: a parametrized weight is one tensor of the graph.
        with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), parametrize.cached():
            torch.manual_seed(self.seed or 0)
            twin: Any = copy.deepcopy(model).train().requires_grad_(True)  # a fresh model has no running statistics
            weights = [twin.get_submodule(path).weight for path in paths]
            scores = (snip if self.distribution == "snip" else grasp)(twin, weights, batch, loss)
        flat = torch.cat([score.flatten() for score in scores])
        top = sparsity.kept(flat, round(self.density * len(flat))).double()
        return [part.mean().item() for part in torch.split(top, [score.numel() for score in scores])]


def erdos_renyi(shapes: Sequence[Sequence[int]], density: float, dims: int | None = None) -> list[float]:
    """Densities in proportion to sum / product of the first ``dims`` sizes, at most 1; the total is ``density``."""
    n, raw = [prod(shape) for shape in shapes], [sum(shape[:dims]) / prod(shape[:dims]) for shape in shapes]
    dense: set[int] = set()
    while len(dense) < len(n):
        rest = [i for i in range(len(n)) if i not in dense]
        epsilon = (density * sum(n) - sum(n[i] for i in dense)) / sum(raw[i] * n[i] for i in rest)
        over = {i for i in rest if epsilon * raw[i] > 1}
        if not over:
            return [1.0 if i in dense else epsilon * raw[i] for i in range(len(n))]
        dense |= over
    return [1.0] * len(n)


def snip(model: nn.Module, weights: Sequence[Tensor], batch: Batch, loss: Criterion) -> list[Tensor]:
    """|w · ∂L/∂w| (Lee et al., 2019), the shapes of ``weights``."""
    grads = torch.autograd.grad(loss(forward(model, batch[0]), batch[1]), weights)
    return [(w * g).abs() for w, g in zip(weights, grads, strict=True)]


def grasp(model: nn.Module, weights: Sequence[Tensor], batch: Batch, loss: Criterion) -> list[Tensor]:
    """w · H g (Wang et al., 2020): high where removing the weight would lower the gradient's norm."""
    value = loss(forward(model, batch[0]) / 200, batch[1])  # 200: the temperature released
    grads = torch.autograd.grad(value, weights, create_graph=True)
    return [w * hg for w, hg in zip(weights, torch.autograd.grad(grads, weights, grad_outputs=grads), strict=True)]


@hookimpl
def compressor() -> dict[str, type[Compressor]]:
    return {"random_pruning": RandomPruning}
