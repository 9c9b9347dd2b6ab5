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
from .layout import Given, Seen, flat, join, layout_of, part
from .tape import Tape

if TYPE_CHECKING:
    from .rule import Rule

GRAPHS = 16  # of one optimizer; an ordinary rule has one or two
SMALL = 4096  # tensors up to this size take an elementwise step together: the call would cost more than the work


class Compiled:
    """Runs updates as fused kernels; one instance per optimizer."""

    def __init__(self) -> None:
        self.tapes: dict[Any, Tape] = {}
        self.codes: set[str] = set()
        self.branches: tuple[str | bool, ...] = ()  # of the rule of this step
        self.made: dict[Tape, tuple[fx.GraphModule, dict[Any, Kernel]]] = {}

    def __call__(self, rule: Rule, given: list[Given]) -> None:
        """One step of the tensors of a group."""
        self.branches = flavour(rule)
        small: dict[Any, list[Given]] = {}
        for each in given:
            p, _, state = each
            if _is_small(rule, p, state):
                small.setdefault((state["step"], p.dtype, p.device), []).append(each)
            else:
                self._alone(rule, *each)
        for some in small.values():
            if len(some) == 1:
                self._alone(rule, *some[0])
                continue
            joined = join(some)
            self._update(rule, joined)
            part(joined, some)

    def _alone(self, rule: Rule, p: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        if rule.view == "flat" and (seen := flat(p, grad, state)):
            self._update(rule, seen)
            return
        layout = layout_of(p, rule.view)
        seen = layout.show(p, grad, state)
        self._update(rule, seen)
        layout.put_back(seen, p, state)

    def _update(self, rule: Rule, seen: Seen) -> None:
        """One step of a tensor that is plain, contiguous and in the rule's view."""
        tape = self._tape(rule, seen)
        if tape.play(rule, seen.state["step"]):
            self.made[tape] = (self._graph(rule, tape), {})
        module, kernels = self.made[tape]
        inputs = [seen.p, seen.grad, *[seen.state[name] for name in tape.names], tape.numbers]
        shapes = tuple([x.shape for x in inputs])
        if shapes not in kernels:
            kernels[shapes] = kernel_of(module, inputs, type(rule).__name__)
        kernels[shapes](inputs)

    def _tape(self, rule: Rule, seen: Seen) -> Tape:
        """The tape for tensors like ``seen.p`` and a rule whose fields switch the same branches."""
        key: Any = (self.branches, seen.p.dtype, seen.p.device, seen.p.ndim)
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


def _is_small(rule: Rule, p: Tensor, state: dict[str, Any]) -> bool:
    """Whether ``p`` is small and its step elementwise."""
    if p.numel() > SMALL or rule.view == "tensor" or (rule.view == "rows" and p.ndim > 1):
        return False
    shape = p.shape
    return all(x.shape == shape for name, x in state.items() if name != "step")
