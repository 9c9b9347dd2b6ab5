"""The calls of ``update`` that step the tensors of a group: worked out once, and kept while these stay in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .layout import Given, Layout, Seen, View, layout_of

SMALL = 4096  # tensors up to this size take an elementwise step together: the call would cost more than the work


@dataclass(slots=True)
class InPlace:
    """A tensor that is stepped by itself, in its own memory: number ``at`` of those given, as it is ``seen``."""

    at: int
    layout: Layout
    seen: Seen

    def show(self, given: list[Given]) -> Seen:
        """The tensor, its gradient and its state as they are now."""
        _, grad, state = given[self.at]
        return Seen(self.seen.p, self.layout.one(grad), self.seen.state | {"step": state["step"]})

    def keep(self, seen: Seen, given: list[Given]) -> None:
        """What ``update`` left elsewhere."""
        settle(self.seen.state, seen.state)


@dataclass(slots=True)
class Copied:
    """A tensor whose strides, or those of its state, allow no such view: it is stepped through copies."""

    at: int
    layout: Layout

    def show(self, given: list[Given]) -> Seen:
        """The tensor, its gradient and its state as they are now."""
        return self.layout.show(*given[self.at])

    def keep(self, seen: Seen, given: list[Given]) -> None:
        """What ``update`` left in the copies."""
        p, _, state = given[self.at]
        self.layout.put_back(seen, p, state)


class Joined:
    """Tensors that are joined for a step, (N,), and parted after it; so is their state."""

    def __init__(self, some: list[InPlace]) -> None:
        self.some = some
        columns: dict[str, list[Tensor]] = {"p": [each.seen.p for each in some]}
        for name in some[0].seen.state:
            if name != "step":
                columns[name] = [each.seen.state[name] for each in some]
        sizes = [x.numel() for x in columns["p"]]
        self.columns, self.whole = columns, {name: xs[0].new_empty(sum(sizes)) for name, xs in columns.items()}
        self.parts = {name: torch.split(x, sizes) for name, x in self.whole.items()}

    def show(self, given: list[Given]) -> Seen:
        """They and what belongs to them as they are now."""
        for name, column in self.columns.items():
            torch.cat(column, out=self.whole[name])
        grad = torch.cat([each.layout.one(given[each.at][1]) for each in self.some])
        state = {name: x for name, x in self.whole.items() if name != "p"}
        return Seen(self.whole["p"], grad, state | {"step": given[self.some[0].at][2]["step"]})

    def keep(self, seen: Seen, given: list[Given]) -> None:
        """What ``update`` left in what was joined, or elsewhere."""
        settle(self.whole, seen.state)
        for name, column in self.columns.items():
            torch._foreach_copy_(column, self.parts[name])


class Plan:
    """The tensors of a group as a rule of ``view`` sees them, one after the other; small ones as one, if it may."""

    def __init__(self, view: View, given: list[Given]) -> None:
        self.places = places(given)
        self.calls: list[InPlace | Copied | Joined] = []
        small: dict[Any, list[InPlace]] = {}
        for at, (p, _, state) in enumerate(given):
            layout = layout_of(p, view)
            seen = layout.show(p, p, state)
            if not _same_memory(seen, p, state):
                self.calls.append(Copied(at, layout))
            elif p.numel() <= SMALL and elementwise(view, seen):
                small.setdefault((*state, state["step"], p.dtype, p.device), []).append(InPlace(at, layout, seen))
            else:
                self.calls.append(InPlace(at, layout, seen))
        self.calls += [Joined(some) if len(some) > 1 else some[0] for some in small.values()]

    def shown(self, given: list[Given]) -> Iterator[Seen]:
        """What ``update`` is to be called with, one after the other; what it leaves is kept before the next comes."""
        for call in self.calls:
            seen = call.show(given)
            yield seen
            call.keep(seen, given)


class Plans:
    """The plan of each group, from its last step."""

    def __init__(self) -> None:
        self.of: dict[int, Plan] = {}

    def plan(self, view: View, given: list[Given], group: int | None) -> Plan:
        """The plan for ``given``; it is not kept where no group is named."""
        if group is None:
            return Plan(view, given)
        if group not in self.of or self.of[group].places != places(given):
            self.of[group] = Plan(view, given)
        return self.of[group]


def elementwise(view: View, seen: Seen) -> bool:
    """Whether a step of what is seen may look at each number alone."""
    if view == "tensor" or seen.p.ndim > 1:
        return False
    return all(x.shape == seen.p.shape for name, x in seen.state.items() if name != "step")


def pieces(seen: Seen, size: int) -> Iterator[Seen]:
    """An elementwise step, ``size`` numbers at a time."""
    state = {name: torch.split(x, size) for name, x in seen.state.items() if name != "step"}
    for i, (p, grad) in enumerate(zip(torch.split(seen.p, size), torch.split(seen.grad, size), strict=True)):
        here = {name: parts[i] for name, parts in state.items()}
        left = here | {"step": seen.state["step"]}
        yield Seen(p, grad, left)
        settle(here, left)


def settle(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Write what an update put in place of a state tensor into that tensor."""
    for name, x in before.items():
        if isinstance(x, Tensor) and after.get(name, x) is not x:
            x.copy_(after[name])


def places(given: list[Given]) -> list[tuple[Any, ...]]:
    """Where each tensor and its state are in memory, and the steps it took more than the first."""
    return [
        (
            state["step"] - given[0][2]["step"],
            p.data_ptr(),
            p.shape,
            p.stride(),
            *[x.data_ptr() for x in state.values() if isinstance(x, Tensor)],
        )
        for p, _, state in given
    ]


def _same_memory(seen: Seen, p: Tensor, state: dict[str, Any]) -> bool:
    """Whether all is seen where it is."""
    pairs = [(seen.p, p), *((seen.state[name], x) for name, x in state.items() if isinstance(x, Tensor))]
    return all(x.data_ptr() == y.data_ptr() for x, y in pairs)
