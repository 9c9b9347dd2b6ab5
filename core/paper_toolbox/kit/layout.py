"""Show tensors to a rule in the shape it is written for, sharing memory wherever the strides allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

flatten: Any = torch._utils._flatten_dense_tensors  # untyped in torch, as the next
unflatten: Any = torch._utils._unflatten_dense_tensors

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
    """How tensors like ``p`` are seen: axes permuted by ``order`` so that memory runs forward, then ``shape``.

    Without a shape they are seen as they are.
    """

    order: tuple[int, ...] | None
    shape: tuple[int, ...] | None

    def show(self, p: Tensor, grad: Tensor, state: dict[str, Any]) -> Seen:
        """``p``, ``grad`` and the state tensors shaped like ``p`` in the layout; the rest of the state as it is."""
        if self.shape is None:
            return Seen(p, grad, dict(state))
        like = p.shape
        kept = {k: self._show(x) if isinstance(x, Tensor) and x.shape == like else x for k, x in state.items()}
        return Seen(self._show(p), self._show(grad), kept)

    def put_back(self, seen: Seen, p: Tensor, state: dict[str, Any]) -> None:
        """Write into ``p`` and ``state`` what ``update`` changed in copies, or put in place of a state tensor."""
        self._put_back(seen.p, p)
        for name, x in state.items():
            if isinstance(x, Tensor) and seen.state[name] is not x:
                self._put_back(seen.state[name], x) if x.shape == p.shape else x.copy_(seen.state[name])

    def _show(self, x: Tensor) -> Tensor:
        """x in the layout's shape, contiguous: a plain tensor on the same memory, else a copy."""
        shape = self.shape or ()
        if self.order is None and x.is_contiguous():  # as nearly all are
            return x.data if x.shape == shape else x.data.view(*shape)
        return (x if self.order is None else x.permute(self.order)).reshape(shape).contiguous().data

    def _put_back(self, seen: Tensor, x: Tensor) -> None:
        if seen.data_ptr() != x.data_ptr():
            axes = x if self.order is None else x.permute(self.order)
            axes.copy_(seen.reshape(axes.shape))


AS_THEY_ARE = Layout(None, None)


def layout_of(p: Tensor, view: View) -> Layout:
    """The layout in which a rule of ``view`` sees ``p``; rows keep axis 0 in front."""
    kept = p.ndim if view == "tensor" else int(view == "rows" and p.ndim > 1)
    # a tensor without axes is seen as (1,): torch's compiler takes those of float64 for Python numbers
    shape = (tuple(p.shape) or (1,)) if view == "tensor" else (*p.shape[:kept], -1)
    if view == "tensor" or p.is_contiguous():
        return Layout(None, shape)
    return Layout((*range(kept), *sorted(range(kept, p.ndim), key=p.stride, reverse=True)), shape)


def flat(p: Tensor, grad: Tensor, state: dict[str, Any]) -> Seen | None:
    """All as (N,) on their own memory, so that nothing is to be put back; None where one of them is not in one piece.

    It is what ``layout_of(p, "flat")`` shows, in half the time.
    """
    if not (p.is_contiguous() and grad.is_contiguous()):
        return None
    like, kept = p.shape, {}
    for name, x in state.items():
        if isinstance(x, Tensor) and x.shape == like:
            if not x.is_contiguous():
                return None
            kept[name] = x.view(-1)
        else:
            kept[name] = x
    return Seen(p.data.view(-1), grad.data.view(-1), kept)


def join(some: list[Given]) -> Seen:
    """Several tensors as one, (N,), whose state is shaped like themselves; the copies go back with ``part``."""
    (params, grads, states), names = zip(*some, strict=True), [name for name in some[0][2] if name != "step"]
    kept = {name: flatten([state[name] for state in states]) for name in names}
    return Seen(flatten(params), flatten(grads), kept | {"step": states[0]["step"]})


def part(joined: Seen, some: list[Given]) -> None:
    """Write what ``join`` made back to where it came from."""
    params = [p for p, _, _ in some]
    torch._foreach_copy_(params, unflatten(joined.p, params))
    for name, x in joined.state.items():
        if name != "step":
            torch._foreach_copy_([state[name] for _, _, state in some], unflatten(x, params))
