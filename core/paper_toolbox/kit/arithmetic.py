"""The torch calls whose Python numbers a compiled rule takes as inputs, each in plain tensor arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

# By the call's name; its form in place, with a final "_", is open too.
OPEN: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, alpha=None: x + (y if alpha is None else alpha * y),
    "sub": lambda x, y, alpha=None: x - (y if alpha is None else alpha * y),
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "__rsub__": lambda x, y: y - x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "lerp": lambda x, y, weight: x + weight * (y - x),
    "addcmul": lambda x, a, b, value=1: x + value * (a * b),
    "addcdiv": lambda x, a, b, value=1: x + value * (a / b),
    "clamp": lambda x, min=None, max=None: torch.clamp(x, min, max),
    "clamp_min": lambda x, min: torch.clamp(x, min),
    "clamp_max": lambda x, max: torch.clamp(x, max=max),
    "where": lambda condition, x, y: torch.where(condition, x, y),
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
}
OPTIONS = {"alpha", "value", "weight", "min", "max"}
ROOTS = (0.5, -0.5)  # exponents with kernels of their own stay in the graph, as integers do


@wrap_torch_function(lambda x, axis: (x,))
def length(x: Tensor, axis: int) -> Tensor:
    """How long an axis is, () float64. Unlike a number made from ``x.shape`` it lets all shapes share one graph."""
    return x.new_ones((), dtype=torch.float64) * x.shape[axis]


def is_number(x: Any) -> bool:
    """A Python number, not a truth value."""
    return isinstance(x, int | float) and not isinstance(x, bool)
