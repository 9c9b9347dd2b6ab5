"""Note the torch calls that an update makes, with the Python numbers in them set aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from ..errors import PluginError

if TYPE_CHECKING:
    from .rule import Rule, State

# Calls whose numbers become inputs, in plain tensor arithmetic; a name's form in place, with a final "_", is open too.
OPEN: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, alpha=None: x + (y if alpha is None else alpha * y),
    "sub": lambda x, y, alpha=None: x - (y if alpha is None else alpha * y),
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "__rsub__": lambda x, y: y - x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "lerp": lambda x, y, weight: x + weight * (y - x),
    "addcmul": lambda x, a, b, value=1: x + value * (a * b),
    "addcdiv": lambda x, a, b, value=1: x + value * (a / b),
    "clamp": lambda x, min=None, max=None: torch.clamp(x, min, max),
    "clamp_min": lambda x, min: torch.clamp(x, min),
    "clamp_max": lambda x, max: torch.clamp(x, max=max),
    "where": lambda condition, x, y: torch.where(condition, x, y),
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
}
OPTIONS = {"alpha", "value", "weight", "min", "max"}
ROOTS = (0.5, -0.5)  # exponents with kernels of their own stay in the graph, as integers do
SIZES = {"shape", "size", "__len__", "numel", "nelement"}
VALUES = {"__bool__", "__float__", "__int__", "__index__", "__contains__", "item", "tolist", "numpy", "nonzero"}


@dataclass(frozen=True)
class Call:
    """One torch call, what it returned for the tape's shapes, and whether its numbers are inputs."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    is_open: bool
    key: Any


class Tape(TorchFunctionMode):
    """The calls of ``update`` on meta tensors of one shape.

    ``numbers`` are those of the last play, in the order of the calls, on the parameters' device.
    """

    numbers: Tensor

    def __init__(self, p: Tensor, state: State) -> None:
        super().__init__()
        self.names = [name for name in state if name != "step"]
        like = {"p": p, "grad": p} | {name: state[name] for name in self.names}
        if other := [name for name, x in like.items() if not isinstance(x, Tensor)]:
            raise PluginError(f"engine 'compiled' keeps tensors as state, and state[{other[0]!r}] is none")
        self.inputs = {name: torch.empty_like(x, device="meta") for name, x in like.items()}
        self.left = self.inputs  # the state as the update leaves it, by name
        self.shape, self.device = p.shape, p.device
        self.exact = torch.float64 if p.dtype == torch.float64 else torch.float32
        self.calls: list[Call] = []
        self.found: list[float] = []
        self.at, self.changed, self.looks_at_shapes = 0, False, False
        self.last: tuple[Rule | None, int] = (None, 0)

    def play(self, rule: Rule, step: int) -> bool:
        """Bring ``numbers`` to this step; whether the calls are now others than before."""
        if self.last[0] is rule and self.last[1] == step:
            return False
        self.at, self.changed, self.found, self.last = 0, False, [], (rule, step)
        p, grad, *_ = self.inputs.values()
        state = self.inputs | {"step": step}
        with self:
            rule.update(p, grad, state)
        self.changed |= self.at < len(self.calls) or any(state[k] is not x for k, x in self.left.items())
        self.left = {name: state[name] for name in self.inputs}
        del self.calls[self.at :]
        self.numbers = torch.tensor(self.found, dtype=self.exact, device=self.device)
        return self.changed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call; one made before on the same tensors is not made again."""
        name, kwargs = name_of(func), kwargs or {}
        if name in VALUES:
            rule = type(self.last[0]).__name__
            raise PluginError(f"{rule}.update asks for a tensor's value ({name}), which cannot be compiled: use torch.where")
        self.looks_at_shapes |= name in SIZES
        is_open = name.removesuffix("_") in OPEN and kwargs.keys() <= OPTIONS
        key = (func, map_aggregate((args, kwargs), lambda x: self._note(name, x) if is_open else _constant(x)))
        if self.at == len(self.calls) or self.calls[self.at].key != key:
            del self.calls[self.at :]
            self.calls.append(Call(name, func, args, kwargs, func(*args, **kwargs), is_open, key))
            self.changed = True
        self.at += 1
        return self.calls[self.at - 1].out

    def _note(self, name: str, x: Any) -> Any:
        if is_input(name, x):
            self.found.append(float(x))
            return None
        return _constant(x)


def is_input(name: str, x: Any) -> bool:
    """Whether ``x`` is a number that the graph of an open call takes from outside."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        return False
    return not name.startswith("pow") or not (isinstance(x, int) or x in ROOTS)


def name_of(function: Any) -> str:
    """``add_`` of Tensor.add_; of a property, the property's name."""
    name: str = getattr(function, "__name__", "")
    return function.__self__.__name__ if name == "__get__" else name


def _constant(x: Any) -> Any:
    return id(x) if isinstance(x, Tensor) else (type(x), x)
