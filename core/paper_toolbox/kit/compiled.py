"""The compiled engine: ``update`` is played on shapes alone, its numbers set aside, its tensor part fused.

At every step the update runs as ordinary Python on meta tensors, once per group (and per shape, if it looks at
shapes). That yields its numbers, in float64 and by the author's own formulas, so a schedule, a group or a branch on a
field can never go stale. The torch calls it makes are one graph whose inputs are the tensors and the numbers: compiled
once, for tensors of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.fx.proxy import GraphAppendingTracer

from ..errors import PluginError, ToolboxError
from .tape import OPEN, Call, Tape, is_input

if TYPE_CHECKING:
    from .rule import Rule, State

GRAPHS = 16  # of one optimizer; an ordinary rule has one or two
OPTIONS = {"cpp.vec_isa_ok": True}  # else the compiler is first asked, for seconds, about each instruction set of the CPU


class Compiled:
    """Runs updates through ``torch.compile``; one instance per optimizer."""

    def __init__(self) -> None:
        self.tapes: dict[Any, Tape] = {}
        self.graphs: dict[str, Any] = {}
        self.of_tape: dict[Tape, Any] = {}

    def __call__(self, rule: Rule, p: Tensor, grad: Tensor, state: State) -> None:
        """One update; all tensors are plain ones in the rule's view."""
        tape = self._tape(rule, p, state)
        if tape.play(rule, state["step"]):
            self.of_tape[tape] = self._compile(rule, tape)
        try:
            self.of_tape[tape](p, grad, *(state[name] for name in tape.names), tape.numbers)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ToolboxError(f"engine 'compiled' cannot compile {type(rule).__name__}, use 'eager': {said}") from error

    def _tape(self, rule: Rule, p: Tensor, state: State) -> Tape:
        """The tape for tensors like ``p`` and a rule whose fields switch the same branches."""
        flavour = tuple(v if isinstance(v, str) else bool(v) for v in vars(rule).values())
        key: Any = (flavour, p.dtype, p.device, p.ndim)
        tape = self.tapes.get(key)
        if tape is not None and tape.looks_at_shapes and tape.shape != p.shape:
            key = (key, p.shape)
            tape = self.tapes.get(key)
        if tape is None:
            tape = self.tapes[key] = Tape(p, state)
        return tape

    def _compile(self, rule: Rule, tape: Tape) -> Any:
        """The compiled graph of a tape, shared with the tapes that differ in sizes and numbers alone."""
        module = graph_of(tape)
        if module.code not in self.graphs:
            if len(self.graphs) == GRAPHS:
                raise PluginError(
                    f"{type(rule).__name__}.update has made {GRAPHS} graphs: sizes or changing numbers stand in calls that "
                    f"cannot take them as inputs; those that can are {', '.join(OPEN)}"
                )
            self.graphs[module.code] = torch.compile(module, fullgraph=True, dynamic=True, options=OPTIONS)
        return self.graphs[module.code]


def graph_of(tape: Tape) -> fx.GraphModule:
    """``forward(p, grad, *state, numbers)``: the tape's calls, changing p and the state in place."""
    graph = fx.Graph()
    tracer = GraphAppendingTracer(graph)
    known = {id(x): fx.Proxy(graph.placeholder(name), tracer) for name, x in tape.inputs.items()}
    numbers = fx.Proxy(graph.placeholder("numbers"), tracer)
    inputs = (numbers[i] for i in range(len(tape.found)))
    for call in tape.calls:

        def proxy(x: Any, call: Call = call) -> Any:
            if isinstance(x, Tensor):
                return _known(known, x)
            return next(inputs) if call.is_open and is_input(call.name, x) else x

        out = _write(tracer, call, *map_aggregate((call.args, call.kwargs), proxy))
        known |= {id(x): out if call.out is x else out[i] for i, x in _tensors(call.out) if id(x) not in known}
    for name, x in tape.inputs.items():
        if tape.left[name] is not x:
            known[id(x)].copy_(known[id(tape.left[name])])
    graph.output(None)
    return fx.GraphModule(torch.nn.Module(), graph)


def _write(tracer: GraphAppendingTracer, call: Call, args: Any, kwargs: Any) -> Any:
    """The call on proxies: as it was made, or in arithmetic that takes its numbers as tensors."""
    if call.out is not None and not _tensors(call.out):
        return None  # a size, a dtype: known already
    if call.is_open:
        out = OPEN[call.name.removesuffix("_")](*args, **kwargs)
        return args[0].copy_(out) if call.name.endswith("_") and call.name not in OPEN else out
    if getattr(torch.Tensor, call.name, None) is call.function:
        return tracer.create_proxy("call_method", call.name, args, kwargs)
    if call.function.__name__ == "__get__":
        return tracer.create_proxy("call_function", getattr, (args[0], call.name), {})
    return tracer.create_proxy("call_function", call.function, args, kwargs)


def _known(known: dict[int, Any], x: Tensor) -> Any:
    if id(x) not in known:
        raise PluginError("update uses a tensor that is neither p, grad, state nor made in update: keep it in the state")
    return known[id(x)]


def _tensors(out: Any) -> list[tuple[int, Tensor]]:
    """(position, tensor) of what a call returned."""
    outs = out if isinstance(out, tuple | list) else (out,)
    return [(i, x) for i, x in enumerate(outs) if isinstance(x, Tensor)]
