"""The torch side of an optimizer: groups whose keys override the method's fields, checked states, exact checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, NeedError
from ..kinds import Optimizer
from .shards import is_shard, refuse_shards

State = dict[str, Any]


class GroupedOptimizer(torch.optim.Optimizer):
    """Holds a method's parameter groups and the state of every tensor; ``step`` is the subclass's."""

    def __init__(self, method: Optimizer, params: Iterable[Any]) -> None:
        self.method = method
        self.seen: dict[int, tuple[tuple[Any, ...], Any]] = {}
        self.flavours: dict[int, tuple[str | bool, ...]] = {}
        groups = list(params)
        if not groups:
            raise ModelError(f"{type(method).__name__} was given no parameters: is the model empty or wholly frozen?")
        super().__init__(groups, {f.name: getattr(method, f.name) for f in fields(method)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does, with the group's values checked like fields."""
        given = {f.name: param_group[f.name] for f in fields(self.method) if f.name in param_group}
        checked = type(self.method).from_options(given)
        super().add_param_group(param_group | {name: getattr(checked, name) for name in given})
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                raise ModelError(f"{type(self.method).__name__} takes real floating-point parameters, not {p.dtype}")
            if is_shard(p):
                refuse_shards(self.method)

    def current(self, number: int, group: dict[str, Any]) -> Any:
        """The method with this group's values; made anew only when one of them changed."""
        values = tuple(group[f.name] for f in fields(self.method))
        if number not in self.seen or self.seen[number][0] != values:
            method = object.__new__(type(self.method))  # skips the validation: schedules may leave a field's bounds
            method.__dict__.update({f.name: v for f, v in zip(fields(method), values, strict=True)})
            self.seen[number] = (values, method)
        return self.seen[number][1]

    def turned(self, number: int, method: Any) -> bool:
        """Whether the group's ``method`` takes other branches than at its last step, and so may want more state."""
        now = flavour(method)
        before, self.flavours[number] = self.flavours.get(number), now
        return before != now

    def dense(self, grad: Tensor | None) -> Tensor:
        """A gradient, if it is a dense one."""
        if grad is None or grad.layout is not torch.strided:
            name = type(self.method).__name__
            raise NeedError(f"{name} takes dense gradients, not sparse ones: build embeddings with sparse=False")
        return grad

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does, but every state tensor keeps the dtype it was saved in."""
        super().load_state_dict(state_dict)
        places = (p for group in self.param_groups for p in group["params"])
        numbers = (i for group in state_dict["param_groups"] for i in group["params"])
        for number, p in zip(numbers, places, strict=True):
            for name, saved in state_dict["state"].get(number, {}).items():
                if isinstance(saved, Tensor) and saved.dtype != self.state[p][name].dtype:
                    self.state[p][name] = saved.to(p.device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"method": self.method}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.seen, self.flavours = {}, {}


def flavour(method: Any) -> tuple[str | bool, ...]:
    """What ordinary branches on its fields ask: texts, and whether the other values are anything."""
    return tuple(v if isinstance(v, str) else bool(v) for v in vars(method).values())
