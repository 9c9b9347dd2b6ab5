"""Batches whose inputs are one tensor, a tuple of tensors, or a dictionary of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]


def forward(model: nn.Module | Callable[..., Any], inputs: Inputs) -> Tensor:
    """``model(inputs)``, ``model(*inputs)`` or ``model(**inputs)``; of a structured output, its ``logits``."""
    if isinstance(inputs, Tensor):
        outputs = model(inputs)
    elif isinstance(inputs, Mapping):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs)
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs["logits"] if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if not isinstance(logits, Tensor):
        logits = outputs[0]
    return logits


def apply(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """``function`` on every tensor, the layout kept."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: function(x) for name, x in inputs.items()}
    return tuple(function(x) for x in inputs)


def tensors(inputs: Inputs) -> list[Tensor]:
    """The tensors, in order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def size(inputs: Inputs) -> int:
    """How many samples the batch holds."""
    return tensors(inputs)[0].shape[0]
