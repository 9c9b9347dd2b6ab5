"""The compiled engine: ``update`` is played on shapes alone, its numbers set aside, its tensor part fused.

At every step the update runs as ordinary Python on meta tensors, once per group (and per shape, if it looks at
shapes). That yields its numbers, in float64 and by the author's own formulas, so a schedule, a group or a branch on a
field can never go stale. The torch calls it makes are one graph whose inputs are the tensors and the numbers: compiled
once, for tensors of any size.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.fx.proxy import GraphAppendingTracer

from ..errors import PluginError, ToolboxError
from .layout import Seen
from .tape import OPEN, Call, Tape

if TYPE_CHECKING:
    from .rule import Rule

GRAPHS = 16  # of one optimizer; an ordinary rule has one or two
SMALL = 4096  # flat tensors up to this size take their step together: the call would cost more than the work
OPTIONS = {"cpp.vec_isa_ok": True, "realize_reads_threshold": 64, "realize_opcount_threshold": 1000}


class Compiled:
    """Runs updates through ``torch.compile``; one instance per optimizer."""

    def __init__(self) -> None:
        self.tapes: dict[Any, Tape] = {}
        self.codes: set[str] = set()
        self.of_tape: dict[Tape, Any] = {}

    def __call__(self, rule: Rule, tensors: list[Seen]) -> None:
        """One step of the tensors of a group; they are plain ones in the rule's view."""
        together: dict[Any, list[Seen]] = {}
        for seen in sorted(tensors, key=lambda seen: -seen.p.numel()):  # the largest first: it sets the loops' pattern
            if _is_small(rule, seen):
                together.setdefault((seen.state["step"], seen.p.dtype, seen.p.device), []).append(seen)
            else:
                self._update(rule, seen)
        for some in together.values():
            joined = join(some) if len(some) > 1 else some[0]
            self._update(rule, joined)
            if len(some) > 1:
                part(joined, some)

    def _update(self, rule: Rule, seen: Seen) -> None:
        tape = self._tape(rule, seen)
        if tape.play(rule, seen.state["step"]):
            self.of_tape[tape] = self._compile(rule, tape)
        try:
            self.of_tape[tape](seen.p, seen.grad, *(seen.state[name] for name in tape.names), tape.numbers)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
            raise ToolboxError(f"engine 'compiled' cannot compile {type(rule).__name__}, use 'eager': {said}") from error

    def _tape(self, rule: Rule, seen: Seen) -> Tape:
        """The tape for tensors like ``seen.p`` and a rule whose fields switch the same branches."""
        flavour = tuple(v if isinstance(v, str) else bool(v) for v in vars(rule).values())
        key: Any = (flavour, seen.p.dtype, seen.p.device, seen.p.ndim)
        tape = self.tapes.get(key)
        if tape is not None and tape.looks_at_shapes and tape.shape != seen.p.shape:
            key = (key, seen.p.shape)
            tape = self.tapes.get(key)
        if tape is None:
            tape = self.tapes[key] = Tape(seen)
        return tape

    def _compile(self, rule: Rule, tape: Tape) -> Any:
        """The compiled graph of a tape, shared with the tapes that differ in sizes and numbers alone."""
        module = graph_of(tape)
        self.codes.add(module.code)
        if len(self.codes) > GRAPHS:
            raise PluginError(
                f"{type(rule).__name__}.update has made {GRAPHS} graphs: sizes or changing numbers stand in calls that "
                f"cannot take them as inputs; those that can are {', '.join(OPEN)}"
            )
        key = (module.code, tape.dtype, tape.device.type)
        if key not in _compiled:
            _compiled[key] = compiled(module)
        return _compiled[key]


_compiled: dict[Any, Any] = {}  # of the process: optimizers with the same rule share it


def compiled(module: fx.GraphModule) -> Any:
    """``module.forward`` through torch's compiler, whose own deprecated calls are its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._inductor.compile_fx
    return torch.compile(module.forward, fullgraph=True, dynamic=True, options=OPTIONS)


def _is_small(rule: Rule, seen: Seen) -> bool:
    if rule.view == "tensor" or seen.p.ndim != 1 or seen.p.numel() > SMALL:
        return False
    return all(x.shape == seen.p.shape for name, x in seen.state.items() if name != "step")


def join(some: list[Seen]) -> Seen:
    """Several flat tensors as one; the copies go back with ``part``."""
    state = {name: torch.cat([seen.state[name] for seen in some]) for name in some[0].state if name != "step"}
    p, grad = torch.cat([seen.p for seen in some]), torch.cat([seen.grad for seen in some])
    return Seen(p, grad, state | {"step": some[0].state["step"]})


def part(joined: Seen, some: list[Seen]) -> None:
    """Write what ``join`` made back to where it came from."""
    sizes = [seen.p.numel() for seen in some]
    torch._foreach_copy_([seen.p for seen in some], joined.p.split(sizes))
    for name, x in joined.state.items():
        if name != "step":
            torch._foreach_copy_([seen.state[name] for seen in some], x.split(sizes))


def graph_of(tape: Tape) -> fx.GraphModule:
    """``forward(p, grad, *state, numbers)``: the tape's calls, changing p and the state in place."""
    graph = fx.Graph()
    tracer = GraphAppendingTracer(graph)
    known = {id(x): fx.Proxy(graph.placeholder(name), tracer) for name, x in tape.inputs.items()}
    numbers = fx.Proxy(graph.placeholder("numbers"), tracer)
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
    graph.output(None)
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
    if call.function.__name__ == "__get__":
        return tracer.create_proxy("call_function", getattr, (args[0], call.name), {})
    return tracer.create_proxy("call_function", call.function, tuple(args), kwargs)


def _proxies(known: dict[int, fx.Proxy], argument: Any) -> Any:
    def proxy(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) not in known:
            raise PluginError("update uses a tensor that is neither p, grad, state nor made in update: keep it in the state")
        return known[id(x)]

    return map_aggregate(argument, proxy)


def _tensors(out: Any) -> list[tuple[int, Tensor]]:
    """(position, tensor) of what a call returned."""
    outs = out if isinstance(out, tuple | list) else (out,)
    return [(i, x) for i, x in enumerate(outs) if isinstance(x, Tensor)]
