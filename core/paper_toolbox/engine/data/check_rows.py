"""Samples that occur twice: within a part of the split, across it, and with different answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .raw import Raw

CHUNK = 1024  # samples read at once
PASSAGE = 50  # characters or tokens in a row that no two texts share by chance
Hashes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Side:
    """One part of a split, as read: the samples at ``index``."""

    raw: Raw
    index: Tensor

    @property
    def targets(self) -> Tensor:
        return self.raw.targets[self.index]

    def chunks(self) -> Iterator[dict[str, Tensor]]:
        """The inputs by name, some samples at a time."""
        for some in torch.split(self.index, CHUNK) if len(self.index) else ():
            yield {name: rows.index_select(0, some) for name, rows in sorted(self.raw.inputs.items())}


def rows_twice(train: Side, held: Side) -> dict[str, Any]:
    """Samples whose inputs equal those of an earlier one, of a part or across; and those with unlike targets."""
    first, second = signatures(train), signatures(held)
    across = np.isin(second, first)
    found: dict[str, Any] = {
        "training": len(first) - len(np.unique(first)),
        "validation": len(second) - len(np.unique(second)),
        "across": int(across.sum()),
        "examples": held.index[torch.from_numpy(across)][:10].tolist(),
    }
    if train.raw.kind != "tokens":
        found |= _unlike(np.concatenate([first, second]), torch.cat([train.targets, held.targets]))
    return found


def signatures(side: Side) -> Hashes:
    """(N,) hashes of the inputs, which are equal where all values are."""
    digests = []
    for inputs in side.chunks():
        columns = [(x + 0).numpy() for x in inputs.values()]  # -0.0 becomes 0.0
        digests += [_digest(b"".join(c[i].tobytes() for c in columns)) for i in range(len(columns[0]))]
    return np.frombuffer(b"".join(digests), np.uint64)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=8).digest()


def _unlike(inputs: Hashes, targets: Tensor) -> dict[str, Any]:
    """How many samples have an equal with another target, and the share of right answers that leaves at most."""
    import pandas

    answers = [_digest(row.tobytes()) for row in targets.numpy()]
    counts = pandas.DataFrame({"inputs": inputs, "answer": answers}).value_counts(["inputs", "answer"])
    by_inputs = counts.groupby("inputs")
    unlike = by_inputs.transform("size") > 1
    return {"unlike": int(counts[unlike].sum()), "at_best": float(by_inputs.max().sum() / len(inputs))}


def text_seen(train: Side, held: Side) -> float | None:
    """The share of held-out passages of ``PASSAGE`` ids that the training text has; None for data of other kinds."""
    name = next(iter(train.raw.vocabularies), None)
    if train.raw.kind != "tokens" or name is None or train.raw.inputs[name].shape != train.raw.targets.shape:
        return None
    first, second = (_passages(side, name) for side in (train, held))
    return float(np.isin(second, first).mean()) if len(second) else None


def _passages(side: Side, name: str) -> Hashes:
    ids = side.raw.inputs[name].index_select(0, side.index)
    rows = torch.cat([ids, side.targets[:, -1:]], 1).numpy().astype(np.uint64)  # (N, T + 1): a window and what follows
    if side.raw.running:
        rows = rows.reshape(1, -1)
    width = min(PASSAGE, side.raw.targets.shape[1] + 1)
    found = np.zeros((len(rows), max(0, rows.shape[1] - width + 1)), np.uint64)
    for i in range(width):  # a polynomial in 64 bits
        found = found * np.uint64(0x9E3779B97F4A7C15) + rows[:, i : i + found.shape[1]] + np.uint64(1)
    return found.ravel()
