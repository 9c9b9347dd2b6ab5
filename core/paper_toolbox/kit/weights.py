"""The weights of linear and convolutional layers, and how to parametrize them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from . import surgery
from .splice import tied


def maps(model: nn.Module, *, last: bool = True) -> list[tuple[str, Any]]:
    """(path, layer) of the linear and convolutional layers whose weight no other layer uses too.

    Without ``last``, the layer registered last is left out: it gives the outputs.
    """
    found = surgery.find(model, (nn.Linear, _ConvNd))
    return [(path, layer) for path, layer in found[: None if last else -1] if not tied(model, _holder(layer))]


def attach(
    model: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module], *, last: bool = True
) -> list[tuple[str, Any]]:
    """Parametrize by ``make(layer)``, a ``kind``, the weights of ``maps`` that have none; (path, layer) of those."""
    changed = []
    for path, layer in maps(model, last=last):
        if not any(type(old) is kind for old in parametrizations(layer)):
            surgery.parametrize(model, path, "weight", make(layer))
            changed.append((path, layer))
    return changed


def parametrizations(layer: nn.Module, tensor: str = "weight") -> list[nn.Module]:
    """What is registered on ``tensor``, in order."""
    if not parametrize.is_parametrized(layer, tensor):
        return []
    return list(layer.parametrizations[tensor].children())  # type: ignore[index, union-attr]  # a ModuleDict


def output_axis(layer: nn.Module) -> int:
    """The axis of the weight that counts the output units: 1 in transposed convolutions, else 0."""
    return 1 if isinstance(layer, _ConvTransposeNd) else 0


def as_rows(weight: Tensor, axis: int = 0) -> Tensor:
    """weight -> (units, rest): the 2-D view in which each output unit is a row."""
    return weight.movedim(axis, 0).flatten(1)


def unit_axis(layer: Any) -> int:
    """The axis of the outputs that counts the output units, from the end."""
    return -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)


def per_unit(outputs: Tensor, axis: int) -> Tensor:
    """outputs -> (units, samples and positions)."""
    return outputs.movedim(axis, 0).flatten(1)


def _holder(layer: nn.Module) -> nn.Module:
    """The module that owns the tensors behind the weight."""
    if parametrize.is_parametrized(layer, "weight"):
        return layer.parametrizations["weight"]  # type: ignore[index, return-value]  # a ParametrizationList
    return layer
