"""Write the calls of a tape as a graph whose Python numbers are inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.fx.proxy import GraphAppendingTracer

from ..errors import PluginError
from .arithmetic import OPEN, length
from .tape import Call, Tape


def graph_of(tape: Tape) -> fx.GraphModule:
    """``forward(p, grad, *state, numbers)``: the tape's calls, changing p and the state in place."""
    graph = fx.Graph()
    tracer = GraphAppendingTracer(graph)
    known = {id(x): fx.Proxy(graph.placeholder(name), tracer) for name, x in tape.inputs.items()}
    numbers: Any = fx.Proxy(graph.placeholder("numbers"), tracer)
    inputs = (numbers[i] for i in range(len(tape.found)))
    for call in tape.calls:
        values = (*call.args, *call.kwargs.values())
        new = [next(inputs) if free else _proxies(known, x) for x, free in zip(values, call.inputs, strict=True)]
        args, kwargs = new[: len(call.args)], dict(zip(call.kwargs, new[len(call.args) :], strict=True))
        out = _write(tracer, call, args, kwargs)
        known |= {id(x): out if call.out is x else out[i] for i, x in _tensors(call.out) if id(x) not in known}
    for name, x in tape.inputs.items():
        if tape.left[name] is not x:
            known[id(x)].copy_(known[id(tape.left[name])])
    graph.output(())
    return fx.GraphModule(torch.nn.Module(), graph)


def _write(tracer: GraphAppendingTracer, call: Call, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The call on proxies: as it was made, or in arithmetic that takes its numbers as tensors."""
    if call.out is not None and not _tensors(call.out):
        return None  # a size, a dtype: known already
    if call.is_open:
        name = call.name.removesuffix("_")
        out = OPEN["mul" if name == "div" and any(call.inputs) else name](*args, **kwargs)  # the tape holds 1 / divisor
        return args[0].copy_(out) if call.name not in OPEN else out
    if getattr(Tensor, call.name, None) is call.function:
        return tracer.create_proxy("call_method", call.name, tuple(args), kwargs)
    if call.name == "length":
        return length.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]  # its body, written on proxies
    if call.function.__name__ == "__get__":
        return tracer.create_proxy("call_function", getattr, (args[0], call.name), {})
    return tracer.create_proxy("call_function", call.function, tuple(args), kwargs)


def _proxies(known: dict[int, fx.Proxy], argument: Any) -> Any:
    def proxy(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) not in known:
            raise PluginError(
                "update uses a tensor that is neither p, grad, state nor made in update: keep it in the state"
            )
        return known[id(x)]

    return map_aggregate(argument, proxy)


def _tensors(out: Any) -> list[tuple[int, Tensor]]:
    """(position, tensor) of what a call returned."""
    outs = out if isinstance(out, tuple | list) else (out,)
    return [(i, x) for i, x in enumerate(outs) if isinstance(x, Tensor)]
