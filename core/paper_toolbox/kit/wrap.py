"""An optimizer around another: it shares the inner one's groups, state and checkpoints, and has its own step."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from .. import needs
from ..errors import NeedError, ParamError
from ..kinds import Closure, Optimizer
from ..method import param
from .shards import Pieces, is_shard, refuse_shards
from .storage import PLAIN, Storage


@dataclass(frozen=True, kw_only=True)
class Wrapper(Optimizer):
    """Wraps the optimizer named ``base``; those of the next fields that are set are passed on to it.

    ``around`` lists what the base's step may ask for; ``shards`` are the pieces of tensors that are enough for what
    the wrapper itself does, as in a ``Rule``.
    """

    around: ClassVar[tuple[Closure, ...]] = ("none",)
    shards: ClassVar[Pieces] = "none"

    base: str = param("sgd", "the optimizer inside: its name, with fields as in adamw?eps=1e-6&betas=0.9,0.99")
    lr: float | None = param(None, "step size of the base; none: its own default", low=0)
    momentum: float | None = param(None, "momentum of the base; none: its own default", low=0)
    weight_decay: float | None = param(None, "decay of the base; none: its own default", low=0)

    @property
    def scheduled(self) -> bool:  # type: ignore[override]  # the base's, which a field names
        return self.inner().scheduled

    @abstractmethod
    def step(self, run: WrappedOptimizer, closure: Any) -> Any:
        """One step, which ends in ``run.descend``; the loss of the first pass, where one was computed."""

    def inner(self) -> Optimizer:
        """The method inside; a field that it lacks is a ``ParamError``."""
        given = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        inner = named(self.base, {k: v for k, v in given.items() if v is not None})
        if inner.closure not in self.around:
            asks = {
                "none": "nothing",
                "gradient": "a closure",
                "loss": "the loss alone",
                "samples": "the samples of its batch",
            }
            fit = " or ".join(asks[c] for c in self.around)
            raise ParamError(
                f"{type(self).__name__}.base = {self.base!r}: its step takes {asks[inner.closure]}; inside "
                f"{type(self).__name__} must be an optimizer whose step takes {fit}"
            )
        return inner

    def build(
        self,
        params: Iterable[Any],
        *,
        model: nn.Module | None = None,
        engine: str = "auto",
        storage: Storage = PLAIN,
        steps_total: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> torch.optim.Optimizer:
        """What the base may ask for is passed on; ``model`` keeps its buffers still in every pass but the first."""
        inner = self.inner()
        given: dict[str, Any] = {
            "model": model,
            "engine": engine,
            "steps_total": steps_total,
            "steps_per_epoch": steps_per_epoch,
        }
        if storage != PLAIN:
            given["storage"] = storage
            asks_for_storage(inner, self.base)
        asked = needs.supply(inner.build, {k: v for k, v in given.items() if v is not None}, self.base)
        return WrappedOptimizer(self, inner, inner.build(params, **asked), model)


def asks_for_storage(method: Optimizer, name: str) -> None:
    """Refuse an optimizer that keeps its state in its own way, where another way is wanted."""
    if "storage" not in needs.of(method.build):
        raise NeedError(
            f"{name} keeps its weights and state in its own way: leave out optimizer_state, weights and offload_state"
        )


@dataclass(frozen=True, kw_only=True)
class Transform(Wrapper):
    """Changes the gradients wherever the base sees them: before its step, or in each of its passes."""

    around = ("none", "gradient")

    @property
    def closure(self) -> Closure:  # type: ignore[override]  # the base's, which a field names
        return self.inner().closure

    @abstractmethod
    def transform(self, run: WrappedOptimizer) -> None:
        """Change ``p.grad`` of ``run.moved()`` in place."""

    def step(self, run: WrappedOptimizer, closure: Any) -> Any:
        def transformed() -> Any:
            with torch.enable_grad():
                loss = closure() if closure is not None else None
            self.transform(run)
            return loss

        return run.descend(transformed)


def named(source: str, fields: dict[str, Any] | None = None) -> Optimizer:
    """The optimizer that ``NAME?field=value&…`` names; ``fields`` come on top."""
    from paper_toolbox import method  # the host's look-up by name, which kit knows nothing else of

    name, _, query = source.partition("?")
    made: Optimizer = method(name, "optimizer", **dict(parse_qsl(query, keep_blank_values=True)) | (fields or {}))
    return made


class WrappedOptimizer(torch.optim.Optimizer):
    """Looks like its base to schedules and checkpoints."""

    def __init__(self, method: Wrapper, inner: Optimizer, base: torch.optim.Optimizer, model: nn.Module | None) -> None:
        self.method, self.inner, self.base, self.model = method, inner, base, model
        self.asked = method.closure  # kept: of a Transform it is the base's, which is built anew to tell it
        super().__init__(base.param_groups, base.defaults)
        self._share()
        if any(is_shard(p) for p in self.trained):
            refuse_shards(method)

    def _share(self) -> None:
        self.defaults, self.state, self.param_groups = self.base.defaults, self.base.state, self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` zeroes the gradients, runs forward and backward and returns the loss."""
        if closure is None and self.asked != "none":
            raise ParamError(f"{type(self.method).__name__}.step needs a closure that runs forward and backward")
        return self.method.step(self, torch.enable_grad()(closure) if self.asked == "gradient" and closure else closure)

    def descend(self, closure: Callable[[], Any] | None = None) -> Any:
        """The base's step, after ``closure`` or with it, as the base wants it; returns what ``closure`` returned."""
        if closure is not None and self.inner.closure == "none":
            loss = closure()
            self.base.step()
            return loss
        return self.base.step(closure)

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that are trained, with a gradient or without."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def moved(self) -> list[Tensor]:
        """The tensors that have a gradient, which must be a dense one."""
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(p.grad is None or p.grad.layout is not torch.strided for p in moved):
            name = type(self.method).__name__
            raise NeedError(f"{name} takes dense gradients, not sparse ones: build embeddings with sparse=False")
        return moved

    def grads(self) -> list[Tensor]:
        """The gradients of ``moved()``."""
        return [p.grad for p in self.moved() if p.grad is not None]

    @property
    def own(self) -> dict[str, Any]:
        """What the wrapper itself keeps from step to step: numbers, texts and lists of them."""
        own: dict[str, Any] = self.param_groups[0].setdefault(f"of {type(self.method).__name__}", {})
        return own

    def state_dict(self) -> dict[str, Any]:
        """The base's."""
        state = self.base.state_dict()
        return state | {"param_groups": copy.deepcopy(state["param_groups"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the base."""
        self.base.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {"method": self.method, "inner": self.inner, "base": self.base, "model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is the same view of the copied base
