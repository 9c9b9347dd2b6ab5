"""Where a layer sits in a model, and how another takes its place; the edits that are recorded are in ``surgery``."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from torch import nn
from torch.nn.utils import parametrize

from ..errors import ModelError


def at(model: nn.Module, path: str) -> nn.Module:
    """The layer at ``path``; a path that is not there is a ``ModelError``."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ModelError(f"{type(model).__name__} has no layer {path!r}") from None


def like(model: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """``layer`` in the mode, on the device and in the dtype of the layer at ``path``, or else of the model."""
    old = at(model, path)
    for tensor in chain(old.parameters(), model.parameters()):
        if tensor.is_floating_point():
            layer.to(tensor.device, tensor.dtype)
            break
    return layer.train(old.training)


def put(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Put ``layer`` everywhere the layer at ``path`` is used: what two places share stays shared."""
    if not path:
        raise ModelError(f"the model is itself a {type(model).__name__}: put it into a container to have it replaced")
    old = at(model, path)
    for place in [p for p, m in model.named_modules(remove_duplicate=False) if m is old]:
        parent, _, name = place.rpartition(".")
        setattr(model.get_submodule(parent), name, layer)


def own_class(layer: nn.Module) -> nn.Module:
    """Give a parametrized layer a class of its own.

    torch keeps the parametrized tensors as properties of a class that a deep copy shares with its original: without
    this, removing or adding a parametrization of the copy would break the original.
    """
    if parametrize.is_parametrized(layer):
        cls = type(layer)
        layer.__class__ = type(cls.__name__, cls.__bases__, dict(vars(cls)))
    return layer


def tied(model: nn.Module, owner: nn.Module) -> list[str]:
    """The names of the parameters of ``owner`` that another module of ``model`` uses too."""
    uses = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    return [name for name, p in owner._parameters.items() if p is not None and uses[id(p)] > 1]


def untie(model: nn.Module, owner: nn.Module) -> bool:
    """Give ``owner`` copies of the parameters it shares with other modules; whether there were any."""
    shared = tied(model, owner)
    for name in shared:
        old = owner.get_parameter(name)
        owner.register_parameter(name, nn.Parameter(old.detach().clone(), old.requires_grad))
    return bool(shared)


def settle(layer: nn.Module, tensor: str, order: list[str], trained: bool) -> None:
    """A baked tensor back as torch had it: a parameter if its originals were ``trained``, and in the old ``order``."""
    if trained and tensor in layer._buffers:  # torch makes a buffer of what was frozen
        frozen = layer._buffers.pop(tensor)
        layer.register_parameter(tensor, nn.Parameter(frozen, requires_grad=False))  # type: ignore[arg-type]  # never None
    for name in order:
        if name in layer._parameters:
            layer._parameters[name] = layer._parameters.pop(name)
