"""Note the torch calls that an update makes, with the Python numbers in them set aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import PluginError
from .arithmetic import OPEN, OPTIONS, ROOTS, is_number
from .layout import Seen

if TYPE_CHECKING:
    from .rule import Rule

SIZES = {"shape", "size", "__len__", "numel", "nelement"}
VALUES = {"__bool__", "__float__", "__int__", "__index__", "__contains__", "item", "tolist", "numpy", "nonzero"}


@dataclass(frozen=True, slots=True)
class Call:
    """One torch call and what it returned for the tape's shapes; ``inputs`` marks the arguments that are set aside."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[bool, ...]
    out: Any

    @property
    def is_open(self) -> bool:
        """Whether the call is written as its arithmetic."""
        return self.name.removesuffix("_") in OPEN and self.kwargs.keys() <= OPTIONS

    def repeated(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call is this one again, but for the numbers that are set aside."""
        if function != self.function or len(args) != len(self.args) or kwargs.keys() != self.kwargs.keys():
            return False
        old, new = (*self.args, *self.kwargs.values()), (*args, *kwargs.values())
        return all(
            y is x or (is_number(y) if free else _equal(x, y)) for x, y, free in zip(old, new, self.inputs, strict=True)
        )


class Tape(TorchFunctionMode):
    """The calls of ``update`` on meta tensors like those seen first.

    ``numbers`` are those of the last play, in the order of the calls, on the parameters' device.
    """

    numbers: Tensor

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.names = [name for name in seen.state if name != "step"]
        like = {"p": seen.p, "grad": seen.p} | {name: seen.state[name] for name in self.names}
        self.inputs = {name: torch.empty_like(x, device="meta") for name, x in like.items()}
        self.left = self.inputs  # the state as the update leaves it, by name
        self.shape, self.dtype, self.device = seen.p.shape, seen.p.dtype, seen.p.device
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
        state: dict[str, Any] = self.inputs | {"step": step}
        with self:
            rule.update(p, grad, state)
        self.changed |= self.at < len(self.calls) or any(state[k] is not x for k, x in self.left.items())
        self.left = {name: state[name] for name in self.inputs}
        del self.calls[self.at :]
        self.numbers = torch.tensor(
            self.found, dtype=torch.promote_types(self.dtype, torch.float32), device=self.device
        )
        return self.changed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call; one made before on the same tensors is not made again."""
        kwargs = kwargs or {}
        if self.at == len(self.calls) or not self.calls[self.at].repeated(func, args, kwargs):
            del self.calls[self.at :]
            self.calls.append(self._call(func, args, kwargs))
            self.changed = True
        call = self.calls[self.at]
        self.at += 1
        for x, free in zip((*args, *kwargs.values()), call.inputs, strict=True):
            if free:
                self.found.append(1 / x if call.name in ("div", "div_") and x else float(x))
        return call.out

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        name = name_of(func)
        if name in VALUES:
            rule = type(self.last[0]).__name__
            raise PluginError(
                f"{rule}.update asks for a tensor's value ({name}), which cannot be compiled: use torch.where"
            )
        self.looks_at_shapes |= name in SIZES
        call = Call(name, func, args, kwargs, (), func(*args, **kwargs))
        values = (*args, *kwargs.values())
        fixed = (int, *ROOTS) if name in ("pow", "pow_") else ()
        inputs = tuple(call.is_open and is_number(x) and x not in fixed and type(x) not in fixed for x in values)
        return Call(name, func, args, kwargs, inputs, call.out)


def name_of(function: Any) -> str:
    """``add_`` of Tensor.add_; of a property, the property's name."""
    name: str = getattr(function, "__name__", "")
    return str(function.__self__.__name__) if name == "__get__" else name


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, tuple | list) and isinstance(y, tuple | list):
        return len(x) == len(y) and all(a is b or _equal(a, b) for a, b in zip(x, y, strict=True))
    return not isinstance(x, Tensor) and type(x) is type(y) and bool(x == y)
