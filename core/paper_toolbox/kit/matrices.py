"""A rule for the matrices inside a model, and another optimizer for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from .. import needs
from ..errors import ModelError, ParamError
from ..kinds import Optimizer
from ..method import param
from .capture import heads
from .layout import View
from .norms import NORMS
from .parted import PartedOptimizer
from .rule import Rule
from .storage import PLAIN, Storage
from .wrap import asks_for_storage, named


@dataclass(frozen=True, kw_only=True)
class MatrixRule(Rule):
    """A rule that sees matrices (O, I) alone; the optimizer named by ``rest`` takes the other tensors.

    Its matrices are the weights of layers, those of convolutions flattened behind their first axis. Embeddings, the
    last linear layer, norms, vectors, and tensors that belong to no layer (positions, class tokens) are the rest's.
    """

    view: ClassVar[View] = "rows"

    rest: str = param("adamw", "the optimizer of all other tensors: its name, with fields as in adamw?lr=3e-4")

    def build(
        self,
        params: Iterable[Any],
        *,
        model: nn.Module | None = None,
        engine: Any = "auto",
        storage: Storage = PLAIN,
        steps_total: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> torch.optim.Optimizer:
        """``model`` tells which tensors are weights of layers; what ``rest`` may ask for is passed on to it."""
        inner = named(self.rest)
        if inner.closure != "none":
            raise ParamError(
                f"{type(self).__name__}.rest = {self.rest!r}: must be an optimizer whose step takes no closure"
            )
        groups = grouped(params)
        if not groups:
            raise ModelError(f"{type(self).__name__} was given no parameters: is the model empty or wholly frozen?")
        mine, others = divide(groups, self.takes(model))
        parts = [super().build(mine, engine=engine, storage=storage)] if mine else []
        if others:
            given = {"model": model, "engine": engine, "steps_total": steps_total, "steps_per_epoch": steps_per_epoch}
            parts.append(self._rest(inner, others, given, storage))
        return PartedOptimizer(parts)

    def takes(self, model: nn.Module | None) -> Callable[[Tensor], bool]:
        """Which tensors are the rule's own; without a ``model`` all that are shaped like matrices."""
        return is_matrix if model is None else matrices(model).__contains__

    def _rest(
        self, inner: Optimizer, groups: list[Any], given: dict[str, Any], storage: Storage
    ) -> torch.optim.Optimizer:
        """The optimizer of the other tensors; of a group's values it gets those that it has a field for."""
        if storage != PLAIN:
            given = given | {"storage": storage}
            asks_for_storage(inner, self.rest)
        known = {f.name for f in fields(inner)} | {"params"}
        kept = [{k: v for k, v in group.items() if k in known} for group in groups]
        asked = needs.supply(inner.build, {k: v for k, v in given.items() if v is not None}, self.rest)
        return inner.build(kept, **asked)


def is_matrix(p: Tensor) -> bool:
    """Whether ``p``, flattened behind its first axis, has several rows and several columns."""
    return p.ndim > 1 and 1 < len(p) < p.numel()


def matrices(model: nn.Module) -> set[Tensor]:
    """The matrices among the weights of layers, but for those of norms, embeddings and the last linear layer."""
    apart = (*NORMS, nn.Embedding, nn.EmbeddingBag)
    outside = {p for m in model.modules() if isinstance(m, apart) for p in m.parameters()}
    owners = [
        m
        for m in model.modules()
        if isinstance(m, nn.MultiheadAttention | ParametrizationList) or not any(m.children())
    ]
    weights: set[Tensor] = {p for m in owners for p in m.parameters(recurse=False) if is_matrix(p)}
    return weights - outside - heads(model)


def grouped(params: Iterable[Any]) -> list[dict[str, Any]]:
    """What torch's optimizers take, as groups whose ``params`` are lists of tensors."""
    given = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}] if given else []
    found = []
    for group in groups:
        some = group["params"]
        named = [some] if isinstance(some, Tensor) else list(some)
        found.append(group | {"params": [p[1] if isinstance(p, tuple) else p for p in named]})
    return found


def divide(groups: list[dict[str, Any]], inside: Callable[[Tensor], bool]) -> tuple[list[Any], list[Any]]:
    """Each group as two, of the tensors that are ``inside`` and of those that are not; empty ones are left out."""
    found: tuple[list[Any], list[Any]] = ([], [])
    for group in groups:
        for half, wanted in zip(found, (True, False), strict=True):
            if some := [p for p in group["params"] if inside(p) == wanted]:
                half.append(group | {"params": some})
    return found
