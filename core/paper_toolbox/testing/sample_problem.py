"""Problems for the oracles of optimizers that look at samples: a layer whose outputs and derivatives are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from ..kinds import Optimizer
from ..kit.samples import Samples
from .oracle import Array, Draw, array

INPUTS, CLASSES = 3, 3
Batch = tuple[Tensor, Tensor]


def half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """|f - y|² / 2, y one-hot; the mean over the samples."""
    return (outputs - F.one_hot(targets, outputs.shape[1])).square().sum(1).mean() / 2


LOSSES: dict[str, Any] = {"squares": half_squares, "entropy": F.cross_entropy}


class Layer(nn.Module):
    """Three tanh(x Wᵀ + b); w (P,) holds W and then b."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(w[: INPUTS * CLASSES].view(CLASSES, INPUTS).clone())
        self.bias = nn.Parameter(w[INPUTS * CLASSES :].clone())

    def forward(self, x: Tensor) -> Tensor:
        return 3 * F.linear(x, self.weight, self.bias).tanh()


def outputs(w: Array, x: Array) -> Array:
    """Of the layer; w (P,), x (b, INPUTS) -> (b, c)."""
    weight, bias = w[: INPUTS * CLASSES].reshape(CLASSES, INPUTS), w[INPUTS * CLASSES :]
    return np.asarray(3 * np.tanh(x @ weight.T + bias), np.float64)


def inner(x: Array) -> Array:
    """Derivatives of x Wᵀ + b, (b, c, P)."""
    weight = np.einsum("cj,bi->bcji", np.eye(CLASSES), x).reshape(len(x), CLASSES, -1)
    return np.concatenate([weight, np.broadcast_to(np.eye(CLASSES), (len(x), CLASSES, CLASSES))], 2)


def slopes(w: Array, x: Array) -> Array:
    """Derivatives of the outputs, (b, c, P)."""
    return np.asarray((3 - outputs(w, x) ** 2 / 3)[:, :, None] * inner(x))


@dataclass(frozen=True)
class SampleProblem:
    """Where the layer starts, (P,), the batches of each step, and which of ``LOSSES`` is meant."""

    start: Tensor
    steps: list[list[Batch]]
    kind: str

    @classmethod
    def drawn(cls, draw: Draw, sizes: Sequence[int] = (1, 2, 5)) -> SampleProblem:
        """One to four steps, of one or two batches of ``sizes``."""
        kind, random = draw(st.sampled_from(sorted(LOSSES))), torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        some = st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=2)
        steps = [[_batch(random, size) for size in step] for step in draw(st.lists(some, min_size=1, max_size=4))]
        start = torch.randn(INPUTS * CLASSES + CLASSES, generator=random, dtype=torch.float64)
        return cls(start, steps, kind)

    @property
    def given(self) -> tuple[list[list[tuple[Array, Array]]], str]:
        """The steps as an oracle sees them, and the kind."""
        return [[(array(x), y.numpy()) for x, y in batches] for batches in self.steps], self.kind

    def end(self, method: Optimizer, **asked: Any) -> Tensor:
        """Where ``method`` leads, (P,); ``asked`` goes to its ``build``."""
        layer = Layer(self.start)
        optimizer: Any = method.build(layer.parameters(), **asked)
        for batches in self.steps:
            optimizer.step(Samples(layer, batches, LOSSES[self.kind]))
        return flat(layer)


def _batch(random: torch.Generator, size: int) -> Batch:
    x = torch.randn(size, INPUTS, generator=random, dtype=torch.float64)
    return x, torch.randint(CLASSES, (size,), generator=random)


def flat(model: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def net() -> Any:
    """A small network, always the same; (N, 4) -> (N, 3)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def data(size: int = 12) -> Batch:
    """Samples for it."""
    draw = torch.Generator().manual_seed(1)
    return torch.randn(size, 4, generator=draw, dtype=torch.float64), torch.arange(size) % 3
