"""Where a model normalizes its activations, and where it could."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import type_before_parametrizations

from . import surgery

#: torch's own norm layers; its subclasses elsewhere may permute or activate as well, so only these exact types count
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)
_NAMED = re.compile(r"norm(act)?(\dd)?$", re.IGNORECASE)  # LlamaRMSNorm, FrozenBatchNorm2d, BatchNormAct2d
MAPS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def is_norm(layer: nn.Module) -> bool:
    """Whether ``layer`` normalizes: by its type, by its name (…Norm, …Norm2d), or because it has a normalized shape."""
    named = _NAMED.search(type(layer).__name__) is not None
    return named or isinstance(layer, NORMS) or hasattr(layer, "normalized_shape")


@dataclass(frozen=True)
class Place:
    """A norm layer, or the linear map behind which one fits.

    ``shape`` is what the activations have per position: the last axes, or the channels (axis 1, ``channels_first``).
    """

    path: str
    layer: nn.Module
    shape: tuple[int, ...]
    channels_first: bool
    is_norm: bool


def places(model: nn.Module, own: tuple[type[nn.Module], ...] = ()) -> list[Place]:
    """The norm layers of torch and of the types ``own``; of a model without norms, its hidden linear and conv layers.

    Hidden are all but the one registered last, which gives the outputs. A layer of ``own`` type keeps its shape under
    ``normalized_shape`` or ``num_channels``, and may say ``channels_first``.
    """
    layers = [(p, m) for p, m in surgery.find(model, nn.Module) if p]
    if found := [(p, m) for p, m in layers if type_before_parametrizations(m) in (*NORMS, *own)]:
        return [Place(p, m, *_of_norm(m), is_norm=True) for p, m in found]
    if any(is_norm(m) for _, m in layers):
        return []
    maps = [(p, m) for p, m in layers if type_before_parametrizations(m) in MAPS]
    return [Place(p, m, *_of_map(m), is_norm=False) for p, m in maps[:-1]]


def put(model: nn.Module, place: Place, norm: nn.Module) -> None:
    """``norm`` in the place of the old norm, whose gain and bias it takes over where they fit; or behind the map."""
    if not place.is_norm:
        surgery.insert(model, place.path, norm)
        return
    old = dict(place.layer.named_parameters(recurse=False))
    with torch.no_grad():
        for name, new in norm.named_parameters(recurse=False):
            if name in old and old[name].shape == new.shape:
                new.copy_(old[name])
    surgery.replace(model, place.path, norm)


def _of_norm(layer: nn.Module) -> tuple[tuple[int, ...], bool]:
    if isinstance(layer, _NormBase):
        return (layer.num_features,), True
    if isinstance(layer, nn.GroupNorm) or not hasattr(layer, "normalized_shape"):
        return (int(layer.num_channels),), True  # type: ignore[arg-type]  # an int by the contract of ``places``
    return tuple(layer.normalized_shape), bool(getattr(layer, "channels_first", False))  # type: ignore[arg-type]  # ditto


def _of_map(layer: nn.Module) -> tuple[tuple[int, ...], bool]:
    if isinstance(layer, _ConvNd):
        return (layer.out_channels,), True
    return (int(layer.out_features),), False  # type: ignore[arg-type]  # an nn.Linear
