"""Shards: of every tensor, the rows that one of several processes keeps (torch's FSDP2), and what is right on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import torch
from torch import Tensor

from ..errors import NeedError, PluginError
from ..kinds import Optimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Pieces = Literal["elements", "rows", "none"]  #: the parts of a tensor that an update may be given one by one


def is_shard(x: Any) -> TypeGuard[DTensor]:
    """Whether ``x`` is a tensor of which each process keeps a part."""
    return hasattr(x, "device_mesh")


def local(x: Any) -> Any:
    """The part of a shard that is here, sharing its memory; anything else as it is."""
    return x.to_local() if is_shard(x) else x


def shard_like(p: DTensor, x: Tensor) -> Tensor:
    """The state ``x``, made for the part of ``p`` that is here, as a shard: one row for each of ``p``'s, or a number.

    p (O, ...) of which (o, ...) are here; x (o, ...) -> (O, ...); () stays.
    """
    from torch.distributed.tensor import DTensor

    if not x.ndim:
        return x
    here = p.to_local()
    if len(x) != len(here):
        raise PluginError(f"a state of shape {tuple(x.shape)} beside rows of shape {tuple(here.shape)}: one row each")
    shape = p.shape[:1] + x.shape[1:]
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(x, p.device_mesh, p.placements, run_check=False, shape=shape, stride=stride)


def refuse_shards(method: Optimizer, name: str = "") -> None:
    """Refuse to give shards to an optimizer that does not declare, by ``shards``, that it is right on them."""
    if getattr(method, "shards", "none") == "none":
        looks = "at whole tensors" if hasattr(method, "view") else "at several tensors together, or at whole ones"
        raise NeedError(f"{name or type(method).__name__} looks {looks}: it cannot train shards of them")
