"""Write an optimizer as the update of one tensor; groups, schedules, checkpoints and speed are here, once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import PluginError
from ..kinds import Optimizer
from .engines import EngineName, engine_of
from .grouped import GroupedOptimizer
from .grouped import State as State  # plugins take it from here
from .layout import Given, View
from .shards import Pieces, is_shard, local, shard_like
from .storage import PLAIN, SMALL, Storage


@dataclass(frozen=True, kw_only=True)
class Rule(Optimizer):
    """An optimizer given by ``init`` (the state of one tensor) and ``update`` (one step of one tensor).

    ``view`` is the shape in which ``update`` sees ``p``, ``grad`` and the state tensors shaped like ``p``: ``flat``,
    any, for elementwise rules, to which tensors may come joined as one (N,), or one in pieces; ``rows``, (O, I), for
    rules that treat rows as units, where tensors with at most one axis must be treated elementwise, as (N,), joined or
    in pieces; ``tensor``, as they are, but never without an axis.

    ``shards`` are the pieces that ``update`` may be given one by one: ``elements``, which a flat rule's always are;
    ``rows``, where no row looks at another; ``none``, what other rules have that declare nothing.

    ``fused(params, grads, states, steps)``, where torch has a kernel of its own for the rule, is the step of several
    contiguous tensors of one dtype, device and count; ``steps`` is that count as kernels take it, a tensor () for each.
    It must leave what ``update`` leaves; another ``update`` in a subclass puts it out of use.
    """

    view: ClassVar[View] = "flat"
    shards: ClassVar[Pieces] = "elements"
    fused: ClassVar[Callable[..., None] | None] = None

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if "view" in vars(cls) and "shards" not in vars(cls):
            cls.shards = "elements" if cls.view == "flat" else "none"
        if "update" in vars(cls) and "fused" not in vars(cls):
            cls.fused = None

    @abstractmethod
    def init(self, p: Tensor) -> dict[str, Tensor]:
        """The state kept for ``p`` (its own shape, not the view's)."""

    @abstractmethod
    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        """Change ``p`` and ``state`` in place; ``grad`` stays as it is.

        ``self`` carries the group's current values, ``state["step"]`` counts from 1. Use ``torch.where`` for what
        depends on a tensor's values; ordinary Python may depend on anything else.
        """

    def build(
        self, params: Iterable[Any], *, engine: EngineName = "auto", storage: Storage = PLAIN
    ) -> torch.optim.Optimizer:
        """``engine``: torch's own kernel, or else op by op on as much at once as the cache holds; ``eager``: as it is
        written, tensor by tensor; ``compiled``: in few fused kernels. All give the same numbers within rounding.
        """
        return RuleOptimizer(self, params, engine, storage)


class RuleOptimizer(GroupedOptimizer):
    """Runs a rule over parameter groups."""

    def __init__(self, rule: Rule, params: Iterable[Any], engine: str, storage: Storage = PLAIN) -> None:
        self.engine, self.run, self.storage = engine, engine_of(engine), storage
        super().__init__(rule, params)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every tensor that has a gradient; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            rule = self.current(number, group)
            if self.turned(number, rule):
                self._complete(rule, group["params"])
            params = [p for p in group["params"] if p.grad is not None and p.numel()]
            if self.storage == PLAIN:
                self.run(rule, self._given(rule, params), number)
            else:
                self._step_stored(rule, params)
        return loss

    def current(self, number: int, group: dict[str, Any]) -> Any:
        """As inherited; where a field became 0, or is 0 no longer, the state that this asks for is made as well."""
        before = self.seen.get(number)
        rule = super().current(number, group)
        if before is None or (before[1] is not rule and _switches(before[1]) != _switches(rule)):
            for p in group["params"]:
                if state := self.state.get(p):
                    made = _init(rule, self.storage.wide(p, state))
                    state.update({name: x for name, x in made.items() if name not in state})
        return rule

    def _given(self, rule: Rule, params: list[Tensor]) -> list[Given]:
        """Each tensor, its gradient and its state; of shards what is here of them, which may be nothing."""
        given: list[Given] = []
        for p in params:
            grad, state = self.dense(p.grad), self._state(rule, p, self.state[p])
            if not is_shard(p):
                given.append((p, grad, state))
            elif (here := local(p)).numel():
                given.append((here, local(grad), {name: local(x) for name, x in state.items()}))
        return given

    def _step_stored(self, rule: Rule, params: list[Tensor]) -> None:
        """Tensor after tensor, so that one alone is open at a time; small ones together."""
        big = [[p] for p in params if p.numel() >= SMALL]
        for some in [*big, [p for p in params if p.numel() < SMALL]]:
            wide = [self.storage.wide(p, self.state[p]) for p in some]
            opened = [self.storage.opened(w, self.state[p]) for p, w in zip(some, wide, strict=True)]
            states = [self._state(rule, w, state) for w, state in zip(wide, opened, strict=True)]
            grads = [self.dense(p.grad).to(w.dtype) for p, w in zip(some, wide, strict=True)]
            self.run(rule, list(zip(wide, grads, states, strict=True)))
            for p, w, state in zip(some, wide, states, strict=True):
                self.storage.close(p, w, state, self.state[p])

    def _state(self, rule: Rule, p: Tensor, state: State) -> State:
        if not state:
            state["step"] = 0
            state.update(_init(rule, p))
        state["step"] += 1
        return state

    def _complete(self, rule: Rule, params: list[Tensor]) -> None:
        """Tensors that have a state get what is missing in it: a momentum that was 0 so far, say."""
        for p in params:
            if state := self.state.get(p):
                state |= _init(rule, self.storage.wide(p, state)) | state

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"engine": self.engine, "storage": self.storage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "run" not in vars(self):  # a copy; load_state_dict comes here too, and keeps what is compiled
            self.run = engine_of(self.engine)


def _init(rule: Rule, p: Tensor) -> dict[str, Tensor]:
    found = rule.init(local(p))
    for name, x in found.items():
        if name in ("p", "grad", "step") or not isinstance(x, Tensor):
            wrong = "the name is taken" if isinstance(x, Tensor) else f"{type(x).__name__}, where only tensors are kept"
            raise PluginError(f"{type(rule).__name__}.init returns state[{name!r}]: {wrong}")
    return {name: shard_like(p, x) for name, x in found.items()} if is_shard(p) else found


def _switches(rule: Rule) -> list[Any]:
    """What a rule may keep more or less state for: its texts, and which of its other fields are 0."""
    return [value if isinstance(value, str) else bool(value) for value in vars(rule).values()]
