"""Many tensors as one vector: its norm, inner products and parts, in float32 or wider."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import widen


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """‖x‖₂ of all numbers of ``tensors``, on the device of the first; 0 of none; ()."""
    each = norms(tensors)
    return torch.linalg.vector_norm(torch.stack([n.to(each[0].device) for n in each])) if each else torch.zeros(())


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """‖x‖₂ of each tensor; () each, all of one dtype."""
    wide = functools.reduce(torch.promote_types, (x.dtype for x in tensors), torch.float32)
    return list(torch._foreach_norm(list(tensors), 2, wide)) if tensors else []


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """⟨a, b⟩ over all numbers, on the device of the first; ()."""
    products = [torch.dot(widen(x).reshape(-1), widen(y).reshape(-1)) for x, y in zip(a, b, strict=True)]
    return torch.stack([x.to(products[0].device) for x in products]).sum() if products else torch.zeros(())


def add(tensors: Sequence[Tensor], along: Sequence[Tensor], by: Tensor) -> None:
    """``tensors`` move ``by`` times ``along``; ``by`` () is never rounded to half precision."""
    for x, y in zip(tensors, along, strict=True):
        factor = by.to(x.device)
        if x.dtype == y.dtype == widen(y).dtype:
            x.addcmul_(y, factor.to(x.dtype))  # makes nothing as large as x
        else:
            x.add_(widen(y) * factor)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """All as one tensor (n,)."""
    return torch.cat([widen(x).flatten() for x in tensors])


def parted(x: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """x (n,) in the shapes of ``like``."""
    parts = torch.split(x, [p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]
