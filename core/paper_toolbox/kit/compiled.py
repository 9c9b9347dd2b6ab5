"""The compiled engine: ``update`` is played on shapes alone, its numbers set aside, its tensor part fused.

At every step the update runs as ordinary Python on meta tensors, once per group (and per shape, if it looks at
shapes). That yields its numbers, in float64 and by the author's own formulas, so a schedule, a group or a branch on a
field can never go stale. The torch calls it makes are one graph whose inputs are the tensors and the numbers: compiled
once, for tensors of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ..errors import PluginError
from .arithmetic import OPEN
from .graph import graph_of
from .kernel import Kernel, kernel_of
from .layout import Seen, join, part
from .tape import Tape

if TYPE_CHECKING:
    from .rule import Rule

GRAPHS = 16  # of one optimizer; an ordinary rule has one or two
SMALL = 4096  # flat tensors up to this size take their step together: the call would cost more than the work


class Compiled:
    """Runs updates as fused kernels; one instance per optimizer."""

    def __init__(self) -> None:
        self.tapes: dict[Any, Tape] = {}
        self.codes: set[str] = set()
        self.made: dict[Tape, tuple[fx.GraphModule, dict[Any, Kernel]]] = {}

    def __call__(self, rule: Rule, tensors: list[Seen]) -> None:
        """One step of the tensors of a group; they are plain, contiguous and in the rule's view."""
        together: dict[Any, list[Seen]] = {}
        for seen in tensors:
            alike = (seen.state["step"], seen.p.dtype, seen.p.device) if _is_small(rule, seen) else id(seen)
            together.setdefault(alike, []).append(seen)
        for some in together.values():
            joined = join(some) if len(some) > 1 else some[0]
            self._update(rule, joined)
            if len(some) > 1:
                part(joined, some)

    def _update(self, rule: Rule, seen: Seen) -> None:
        tape = self._tape(rule, seen)
        if tape.play(rule, seen.state["step"]):
            self.made[tape] = (self._graph(rule, tape), {})
        module, kernels = self.made[tape]
        inputs = (seen.p, seen.grad, *(seen.state[name] for name in tape.names), tape.numbers)
        shapes = tuple(x.shape for x in inputs)
        if shapes not in kernels:
            kernels[shapes] = kernel_of(module, inputs, type(rule).__name__)
        kernels[shapes](*inputs)

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


def _is_small(rule: Rule, seen: Seen) -> bool:
    if rule.view == "tensor" or seen.p.ndim != 1 or seen.p.numel() > SMALL:
        return False
    return all(x.shape == seen.p.shape for name, x in seen.state.items() if name != "step")
