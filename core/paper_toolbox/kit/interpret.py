"""Run a model operation by operation with a value of one's own in the place of a tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.node import map_aggregate

from ..errors import ModelError

Rule = Callable[..., Any]  # (operation, *arguments) -> result, or NotImplemented

#: Layers, functions and methods that act entry by entry, on one tensor or on several of the same height and width.
ENTRYWISE: tuple[Any, ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Hardsigmoid, nn.Hardswish, nn.Identity, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d),
    *(F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.dropout, torch.relu, torch.sigmoid, torch.tanh),
    *(operator.add, operator.iadd, operator.mul, torch.add, torch.mul, torch.cat),
    *("add", "add_", "mul", "relu", "relu_", "sigmoid", "tanh", "contiguous"),
)
#: Operations that leave an image's shape behind, or only ask for it.
READS: tuple[Any, ...] = (nn.Flatten, torch.flatten, getattr, "flatten", "view", "reshape", "size", "dim")


class Interpreter(fx.Interpreter):
    """Where an argument is a ``carrier``, ``rules[operation]`` computes; where none is, the operation itself.

    An operation is a layer's class (its bases count), a function, or the name of a tensor's method. One without a
    rule, or whose rule returns NotImplemented, is a ``ModelError`` that names the layer and ``who`` met it.
    """

    def __init__(self, model: nn.Module, carrier: type, rules: Mapping[Any, Rule], who: str) -> None:
        super().__init__(_traced(model, who))
        self.carrier, self.rules, self.who = carrier, rules, who

    def run_node(self, n: fx.Node) -> Any:
        """fx's own step, with the rules put in."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "output" or not carried((args, kwargs), self.carrier):
            return super().run_node(n)
        operation, keys = self._operation(n)
        rule = next((self.rules[key] for key in keys if key in self.rules), None)
        result = NotImplemented if rule is None else rule(operation, *args, **kwargs)
        if result is NotImplemented:
            raise ModelError(f"{self.who} has no rule for {self._name(n)}")
        return result

    def _operation(self, n: fx.Node) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What a node calls, and the keys under which its rule may stand."""
        target: Any = n.target
        if n.op == "call_module":
            layer = self.fetch_attr(target)
            return layer, type(layer).__mro__
        if n.op == "call_method":
            return lambda x, *args, **kwargs: getattr(x, target)(*args, **kwargs), (target,)
        return target, (target,)

    def _name(self, n: fx.Node) -> str:
        if n.op == "call_module":
            return f"{type(self.fetch_attr(str(n.target))).__name__} {n.target!r}"
        called = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", n.target)
        stack = list(n.meta.get("nn_module_stack") or ())
        return f"{called}(…) in " + (repr(stack[-1]) if stack else "the model's forward")


def carried(arguments: Any, carrier: type) -> list[Any]:
    """The ``carrier`` values among arguments, however nested."""
    found: list[Any] = []
    map_aggregate(arguments, lambda value: found.append(value) if isinstance(value, carrier) else None)
    return found


def apply_to(unwrap: Callable[[Any], Any], carrier: type, operation: Rule, args: Any, kwargs: Any) -> Any:
    """The operation itself on ``unwrap(value)`` in the place of each ``carrier`` value."""
    plain = map_aggregate((args, kwargs), lambda value: unwrap(value) if isinstance(value, carrier) else value)
    return operation(*plain[0], **plain[1])


def _traced(model: nn.Module, who: str) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model)
    except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:  # the model's own code
        why = str(error).partition("\n")[0]
        raise ModelError(f"{who} cannot follow the forward of {type(model).__name__} (torch.fx): {why}") from error
