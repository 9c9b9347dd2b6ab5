"""An optimizer around another: it shares the inner one's groups, state and checkpoints, and has its own step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import needs
from ..errors import ParamError
from ..kinds import Optimizer
from ..method import param


@dataclass(frozen=True, kw_only=True)
class Wrapper(Optimizer):
    """Wraps the optimizer named ``base``; those of the next fields that are set are passed on to it."""

    base: str = param("sgd", "the optimizer inside, by name")
    lr: float | None = param(None, "step size of the base; none: its own default", low=0)
    momentum: float | None = param(None, "momentum of the base; none: its own default", low=0)
    weight_decay: float | None = param(None, "decay of the base; none: its own default", low=0)

    @abstractmethod
    def step(self, base: torch.optim.Optimizer, closure: Callable[[], Any], model: nn.Module | None) -> Any:
        """One step, which ends in ``base.step()``; returns what the first ``closure()`` returned."""

    def inner(self) -> Optimizer:
        """The method inside; a field that it lacks is a ``ParamError``."""
        from paper_toolbox import method  # the host's look-up by name, which kit knows nothing else of

        given = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        inner: Optimizer = method(self.base, "optimizer", **{k: v for k, v in given.items() if v is not None})
        if inner.closure != "none":
            raise ParamError(
                f"{type(self).__name__}.base = {self.base!r}: must be an optimizer whose step takes no closure"
            )
        return inner

    def build(
        self, params: Iterable[Any], *, model: nn.Module | None = None, engine: str = "eager"
    ) -> WrappedOptimizer:
        """``engine`` is the base's; ``model`` keeps its buffers still in every pass but the first."""
        inner = self.inner()
        return WrappedOptimizer(
            self, inner.build(params, **needs.supply(inner.build, {"model": model, "engine": engine})), model
        )


class WrappedOptimizer(torch.optim.Optimizer):
    """Looks like its base to schedules and checkpoints."""

    def __init__(self, method: Wrapper, base: torch.optim.Optimizer, model: nn.Module | None) -> None:
        self.method, self.base, self.model = method, base, model
        super().__init__(base.param_groups, base.defaults)
        self._share()

    def _share(self) -> None:
        self.defaults, self.state, self.param_groups = self.base.defaults, self.base.state, self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` zeroes the gradients, runs forward and backward and returns the loss."""
        if closure is None:
            raise ParamError(f"{type(self.method).__name__}.step needs a closure that runs forward and backward")
        return self.method.step(self.base, torch.enable_grad()(closure), self.model)

    def state_dict(self) -> dict[str, Any]:
        """The base's."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the base."""
        self.base.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {"method": self.method, "base": self.base, "model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is the same view of the copied base


@contextmanager
def buffers_kept(model: nn.Module | None) -> Iterator[None]:
    """Running statistics and other buffers come out as they went in."""
    before = [] if model is None else [(b, b.clone()) for b in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
