"""The compiled engine: ``update`` is played on shapes alone, its numbers set aside, its tensor part fused.

At every step the update runs as ordinary Python on meta tensors, once per group (and per shape, if it looks at
shapes). That yields its numbers, in float64 and by the author's own formulas, so a schedule, a group or a branch on a
field can never go stale. The torch calls it makes are one graph whose inputs are the tensors and the numbers: compiled
once, for tensors of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from ..errors import PluginError
from .arithmetic import OPEN
from .graph import graph_of
from .grouped import flavour
from .kernel import Kernel, kernel_of
from .layout import Given, Seen
from .plan import InPlace, Plans
from .tape import Tape

if TYPE_CHECKING:
    from .rule import Rule

Branches = tuple[str | bool, ...]
GRAPHS = 16  # of one optimizer; an ordinary rule has one or two


class Compiled:
    """Runs updates as fused kernels; one instance per optimizer."""

    def __init__(self) -> None:
        self.plans = Plans()
        self.tapes: dict[Any, Tape] = {}
        self.codes: set[str] = set()
        self.made: dict[Tape, tuple[fx.GraphModule, dict[Any, Kernel]]] = {}

    def __call__(self, rule: Rule, given: list[Given], group: int | None = None) -> None:
        """One step of the tensors of a group."""
        branches, ready = flavour(rule), []
        for call in self.plans.plan(rule.view, given, group).calls:
            seen = call.show(given)
            kernel, inputs = self._kernel(rule, branches, seen)
            if isinstance(call, InPlace):
                ready.append((kernel, inputs))
            else:
                kernel(inputs)
                call.keep(seen, given)
        for kernel, inputs in ready:  # one after the other, as each leaves Python's own data outside the cache
            kernel(inputs)

    def _kernel(self, rule: Rule, branches: Branches, seen: Seen) -> tuple[Kernel, list[Tensor]]:
        """What steps a tensor that is plain, contiguous and in the rule's view, and what it is to be given."""
        tape = self._tape(branches, seen)
        if tape.play(rule, seen.state["step"]):
            self.made[tape] = (self._graph(rule, tape), {})
        module, kernels = self.made[tape]
        inputs = [seen.p, seen.grad, *[seen.state[name] for name in tape.names], tape.numbers]
        shapes = tuple([x.shape for x in inputs])
        if shapes not in kernels:
            kernels[shapes] = kernel_of(module, inputs, type(rule).__name__)
        return kernels[shapes], inputs

    def _tape(self, branches: Branches, seen: Seen) -> Tape:
        """The tape for tensors and states like those seen and a rule whose fields switch the same branches."""
        names = [name for name in seen.state if name != "step"]
        key: Any = (branches, *names, seen.p.dtype, seen.p.device, seen.p.ndim)
        tape = self.tapes.get(key)
        if tape is not None and tape.looks_at_shapes and tape.shape != seen.p.shape:
            key = (key, seen.p.shape)
            tape = self.tapes.get(key)
        if tape is None:
            tape = self.tapes[key] = Tape(seen)
        return tape

    def _graph(self, rule: Rule, tape: Tape) -> fx.GraphModule:
        """The graph of a tape; tapes that differ in sizes and numbers alone have the same."""
        module = graph_of(tape)
        self.codes.add(module.code)
        if len(self.codes) > GRAPHS:
            raise PluginError(
                f"{type(rule).__name__}.update has made {GRAPHS} graphs: sizes or changing numbers stand in calls that "
                f"cannot take them as inputs; those that can are {', '.join(OPEN)}"
            )
        return module
