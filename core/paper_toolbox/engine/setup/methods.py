"""The methods of a run, built and checked against each other before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ... import needs
from ...errors import NeedError
from ...host import Host
from ...kinds import VERBS, Compressor, Loss, Normalizer, Observer, Optimizer, Regimen
from ...recipe import Choice, Recipe
from ...task import Task

GIVEN: dict[str, frozenset[str]] = {
    "optimizer": frozenset({"model", "steps_total", "steps_per_epoch", "engine", "storage"}),
    "normalizer": frozenset({"batches", "generator"}),
    "compressor": frozenset({"batches", "loss", "generator"}),
    "loss": frozenset({"features", "inputs", "model", "index", "step", "progress"}),
    "regimen": frozenset(),
    "observer": frozenset(),
}
ELSEWHERE = {
    "attributor": "toolbox attribute RUN --plugin {}",
    "diagnostic": "toolbox measure RUN --plugin {}",
    "model": "--model {}",
    "solver": 'paper_toolbox.method("{}").solve(problem)',
}


@dataclass
class Methods:
    """What a training run is made of, ready to use; ``optimizer`` None means torch's AdamW.

    ``verbs`` is what will be called of each one, by name.
    """

    optimizer: Optimizer | None = None
    regimen: Regimen | None = None
    normalizers: list[tuple[str, Normalizer]] = field(default_factory=list)
    compressors: list[tuple[str, Compressor]] = field(default_factory=list)
    losses: list[tuple[str, Loss]] = field(default_factory=list)
    observers: list[tuple[str, Observer]] = field(default_factory=list)
    verbs: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def stateful(self) -> list[str]:
        """The losses with parameters of their own."""
        owners = {name: getattr(self.verbs[name], "__self__", None) for name, _ in self.losses}
        return [name for name, own in owners.items() if isinstance(own, nn.Module) and [*own.parameters()]]

    def asked(self, *names: str) -> frozenset[str]:
        """What the methods ``names`` ask for, all together."""
        return frozenset().union(*(needs.of(self.verbs[name]) for name in names))


def gather(recipe: Recipe, host: Host, task: Task, *, teacher: bool) -> Methods:
    """Build the methods of a training recipe; those that cannot serve it together are refused, by name."""
    built: dict[str, list[tuple[str, Any]]] = {kind: [] for kind in GIVEN}
    verbs = {}
    for choice in recipe.plugins:
        if choice.kind not in GIVEN:
            instead = ELSEWHERE[choice.kind].format(choice.name)
            raise NeedError(f"{choice.name} is of kind {choice.kind}, not a part of training: use {instead}")
        method = host.build(choice.name, choice.kind, **choice.fields)
        verbs[choice.name] = check_needs(choice, method, task, teacher=teacher)
        built[choice.kind].append((choice.name, method))
    _one("optimizer", built["optimizer"])
    _one("regimen", built["regimen"])
    _one("criterion", [(name, loss) for name, loss in built["loss"] if loss.role == "criterion"])
    for name, loss in built["loss"]:
        if task.kind not in loss.tasks:
            raise NeedError(f"{name} is a loss for {' and '.join(loss.tasks)}; {recipe.training.data} is {task.kind}")
    optimizer, regimen = (built[kind][0][1] if built[kind] else None for kind in ("optimizer", "regimen"))
    named = {f"{kind}s": built[kind] for kind in ("normalizer", "compressor", "observer")}
    return Methods(optimizer, regimen, losses=built["loss"], verbs=verbs, **named)


def check_needs(choice: Choice, method: Any, task: Task, *, teacher: bool) -> Callable[..., Any]:
    """Refuse a method whose verb needs what no run of its kind, or this one, provides; the verb."""
    verb: Callable[..., Any] = getattr(method, VERBS[choice.kind])
    if choice.kind == "loss" and (module := method.build(task)) is not None:
        verb = module.forward
    extra = {"teacher", "teacher_logits", "teacher_features"} if teacher else set()
    needs.check(verb, GIVEN.get(choice.kind, frozenset()) | extra, choice.name)
    return verb


def _one(what: str, found: list[tuple[str, Any]]) -> None:
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        plural = {"criterion": "criteria"}.get(what, f"{what}s")
        raise NeedError(f"{names} are both {plural}; a run takes one: keep one of them")
