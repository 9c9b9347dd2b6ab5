"""One side of a split, held in memory or decoded on demand, and the batches drawn from it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import ParamError
from ...kit.batch import Inputs, apply


class Part(ABC):
    """Samples by position. ``targets`` (N,) int64, (N, D) float32, or (N, T) int64 for tokens."""

    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def take(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """index (B,) int64 -> the inputs, standardised, and the targets of these samples."""


class Rows(Protocol):
    """What a column reads its samples from: a tensor, or files decoded on demand."""

    def __len__(self) -> int: ...
    def index_select(self, dim: int, index: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Scale:
    """Subtracts ``mean`` and divides by ``std``, both broadcastable to one sample."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, record: Mapping[str, Any], dims: int) -> Scale:
        """From ``{mean, std, axis}``; a sample has ``dims`` axes, of which ``axis`` carries the channels or columns."""
        shape = [-1 if axis == record.get("axis", 0) else 1 for axis in range(dims)]
        mean, std = (torch.tensor(record[name], dtype=torch.float64).view(shape) for name in ("mean", "std"))
        return cls(mean, std)

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, ...) -> float32, computed in x's own precision."""
        dtype = x.dtype if x.is_floating_point() else torch.float32
        return ((x.to(dtype) - self.mean.to(dtype)) / self.std.to(dtype)).float()


class Columns(Part):
    """Named inputs of equal length. Floats are standardised once, here; pixels (uint8) when they are taken."""

    def __init__(self, rows: Mapping[str, Rows], scales: Mapping[str, Scale], targets: Tensor, layout: str) -> None:
        self.targets, self.layout = targets, layout
        self.rows: dict[str, Rows] = {}
        self.scales: dict[str, Scale] = {}
        for name, values in rows.items():
            lazy = not (isinstance(values, Tensor) and values.is_floating_point())
            self.rows[name] = values if lazy or name not in scales else scales[name](values)  # type: ignore[arg-type]  # a tensor here
            if lazy and name in scales:
                self.scales[name] = scales[name]

    def take(self, index: Tensor) -> tuple[Inputs, Tensor]:
        taken = {name: rows.index_select(0, index) for name, rows in self.rows.items()}
        for name, scale in self.scales.items():
            taken[name] = scale(taken[name])
        targets = self.targets.index_select(0, index)
        if self.layout == "dict":
            return taken, targets
        values = tuple(taken.values())
        return (values[0] if self.layout == "tensor" else values), targets


class Batches:
    """Re-iterable of (inputs, targets); with ``seed`` shuffled by (seed, epoch) alone, without it in order.

    ``batch_size`` counts over all ranks: of every batch, each of ``world`` ranks takes an equal, consecutive share.
    A batch that does not divide is filled up from the beginning of the order. ``limit`` is a number of samples.
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ParamError(f"batch_size = {batch_size}: must be at least 1")
        self.part, self.batch_size, self.seed = part, batch_size, seed
        self.device, self.rank, self.world = torch.device(device), rank, world
        self.count = len(part) if limit is None else min(limit, len(part))
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        return ((inputs, targets) for _, inputs, targets in self.indexed())

    def indexed(self, start: int = 0) -> Iterator[tuple[Tensor, Inputs, Tensor]]:
        """(positions in the part, inputs, targets) from batch ``start`` on."""
        order = self._order()
        for batch in range(start, len(self)):
            share = self._share(order, batch)
            inputs, targets = self.part.take(share)
            yield self._move(share), apply(self._move, inputs), self._move(targets)

    def _order(self) -> Tensor:
        if self.seed is None:
            return torch.arange(self.count)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return torch.randperm(len(self.part), generator=generator)[: self.count]

    def _share(self, order: Tensor, batch: int) -> Tensor:
        """Positions of this rank's part of one batch."""
        first = batch * self.batch_size
        size = min(self.batch_size, self.count - first)
        if self.seed is not None and self.batch_size >= 2 * self.world:
            size = max(size, 2 * self.world)  # one lonely sample has no batch statistics to train with
        each = math.ceil(size / self.world)
        if first + each * self.world <= self.count:
            return order[first + self.rank * each :][:each]
        return order[torch.arange(first + self.rank * each, first + (self.rank + 1) * each) % self.count]

    def _move(self, x: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return x.pin_memory().to(self.device, non_blocking=True)
        return x if self.device.type == "cpu" else x.to(self.device)
