"""Show tensors to a rule in the shape it is written for, sharing memory wherever the strides allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Given = tuple[Tensor, Tensor, dict[str, Any]]  #: a parameter, its gradient and its state
View = Literal["flat", "rows", "tensor"]


@dataclass(slots=True)
class Seen:
    """A parameter, its gradient and its state as ``update`` sees them."""

    p: Tensor
    grad: Tensor
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How tensors like ``p`` are seen: axes permuted by ``order`` so that memory runs forward, then ``shape``."""

    order: tuple[int, ...] | None
    shape: tuple[int, ...]

    def show(self, p: Tensor, grad: Tensor, state: dict[str, Any]) -> Seen:
        """``p``, ``grad`` and the state tensors shaped like ``p`` in the layout; the rest of the state as it is."""
        like = p.shape
        kept = {k: self.one(x) if isinstance(x, Tensor) and x.shape == like else x for k, x in state.items()}
        return Seen(self.one(p.data), self.one(grad), kept)

    def put_back(self, seen: Seen, p: Tensor, state: dict[str, Any]) -> None:
        """Write into ``p`` and ``state`` what ``update`` changed in copies, or put in place of a state tensor."""
        self._put_back(seen.p, p)
        for name, x in state.items():
            if isinstance(x, Tensor) and seen.state[name] is not x:
                self._put_back(seen.state[name], x) if x.shape == p.shape else x.copy_(seen.state[name])

    def one(self, x: Tensor) -> Tensor:
        """x in the layout's shape, contiguous: on the same memory, or else a copy."""
        if self.order is None and x.is_contiguous():  # as nearly all are
            return x if x.shape == self.shape else x.view(self.shape)
        return (x if self.order is None else x.permute(self.order)).reshape(self.shape).contiguous()

    def _put_back(self, seen: Tensor, x: Tensor) -> None:
        if seen.data_ptr() != x.data_ptr():
            axes = x if self.order is None else x.permute(self.order)
            axes.copy_(seen.reshape(axes.shape))


def layout_of(p: Tensor, view: View) -> Layout:
    """The layout in which a rule of ``view`` sees ``p``; rows keep axis 0 in front."""
    kept = p.ndim if view == "tensor" else int(view == "rows" and p.ndim > 1)
    # a tensor without axes is seen as (1,): torch's compiler takes those of float64 for Python numbers
    shape = (tuple(p.shape) or (1,)) if view == "tensor" else (*p.shape[:kept], p.shape[kept:].numel())
    if view == "tensor" or p.is_contiguous():
        return Layout(None, shape)
    return Layout((*range(kept), *sorted(range(kept, p.ndim), key=p.stride, reverse=True)), shape)
