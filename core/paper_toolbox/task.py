"""What a model is asked to do: the shapes that go in, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model. ``shape`` leaves out the batch axis; ``vocabulary`` counts the ids of an int64 input."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    vocabulary: int | None = None


@dataclass(frozen=True)
class Task:
    """The contract between data, model and loss.

    ``classification``: outputs (B, classes), targets (B,) int64. ``regression``: outputs and targets (B, D).
    ``tokens``: outputs (B, T, vocabulary), targets (B, T) int64; -100 marks positions that do not count.
    ``layout`` says how a batch carries its inputs: one tensor, a tuple, or a dictionary by ``TensorSpec.name``.
    """

    kind: Literal["classification", "regression", "tokens"]
    inputs: tuple[TensorSpec, ...]
    outputs: int
    classes: tuple[str, ...] = ()
    layout: Literal["tensor", "tuple", "dict"] = "tensor"

    @property
    def metric(self) -> str:
        """The figure that says how good a model is: ``accuracy`` (higher is better) or ``rmse`` (lower)."""
        return "rmse" if self.kind == "regression" else "accuracy"

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger ``metric`` is the better one."""
        return self.kind != "regression"
