"""What is compared: recipes that differ in their methods, the results so far, and what follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...catalog import Card
from ...errors import NeedError, ParamError
from ...host import Host
from ...recipe import Recipe, assemble
from .verdicts import Verdict, planned, verdicts

Result = dict[str, Any]


@dataclasses.dataclass
class Comparison:
    """What is compared, and what was found so far: ``results[label][seed]``; ``jobs`` trainings ran at once."""

    recipes: dict[str, Recipe]
    seeds: int
    tune: int = 0
    stop_early: bool = False
    jobs: int = 1
    results: dict[str, dict[int, Result]] = dataclasses.field(default_factory=dict)
    trials: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)

    def plan(self) -> dict[str, Any]:
        """What must be the same for a comparison to be continued; looks that are planned cannot be planned anew."""
        recipes = {label: recipe.to_dict() for label, recipe in self.recipes.items()}
        plan = {"recipes": recipes, "tune": self.tune, "stop_early": self.stop_early}
        return plan | ({"seeds": self.seeds} if self.stop_early else {})

    @property
    def looks(self) -> list[int]:
        """After how many seeds ``stop_early`` looks whether all is decided, the end included; empty without it."""
        return planned(self.seeds, len(self.recipes) - 1) if self.stop_early else []


def methods_of(
    host: Host, base: Recipe | None, names: Sequence[str], sets: Sequence[str], flags: Any
) -> dict[str, Recipe]:
    """A recipe per method; ``adamp+max_sup`` is one of two plugins. A ``--set`` goes to the methods that have it.

    What a run can have but one of, an optimizer say, replaces that of ``base``.
    """
    if len(names) < 2:
        raise ParamError("a comparison takes two methods or more: --plugin adamw --plugin adamp")
    if len(set(names)) < len(names):
        raise ParamError("a method is named twice: every --plugin must be another one")
    known = {part: host.find(part) for name in names for part in name.split("+")}
    if watching := [part for part, card in known.items() if card.kind == "observer"]:
        raise NeedError(f"{watching[0]} is an observer, which changes nothing; a comparison keeps every curve itself")
    cards = {card.name for card in known.values()} | {f"{card.kind}:{card.name}" for card in known.values()}
    recipes = {}
    for name in names:
        parts = name.split("+")
        own = {text for part in parts for text in (known[part].name, f"{known[part].kind}:{known[part].name}")}
        kept = [s for s in sets if (owner := s.partition("=")[0].rpartition(".")[0]) in own or owner not in cards]
        rest = _without(host, base, [known[part] for part in parts])
        recipes[name] = assemble(host, rest, parts, kept, flags).unobserved()
    return recipes


def _without(host: Host, base: Recipe | None, cards: Sequence[Card]) -> Recipe | None:
    """``base`` without the methods whose places those of ``cards`` take."""
    if base is None:
        return None
    taken = {_place(host, card.kind, card.name) for card in cards} - {None}
    named = {(card.kind, card.name) for card in cards}
    kept = [c for c in base.plugins if (c.kind, c.name) in named or _place(host, c.kind, c.name) not in taken]
    return dataclasses.replace(base, plugins=tuple(kept))


def _place(host: Host, kind: str, name: str) -> str | None:
    """What a run has but one of: optimizer, regimen, criterion; None for all else."""
    if kind == "loss":
        return "criterion" if host.method(name, kind).role == "criterion" else None
    return kind if kind in ("optimizer", "regimen") else None


def decided(comparison: Comparison) -> bool:
    """Whether more seeds could change nothing; equal figures so far decide nothing."""
    return all(v.outcome not in ("undecided", "the same") for v in judged(comparison).values())


def judged(comparison: Comparison) -> dict[str, Verdict]:
    """A verdict for every method but the first."""
    values, better = values_of(comparison)
    return verdicts(values, better, comparison.looks)


def values_of(comparison: Comparison) -> tuple[dict[str, list[float]], bool]:
    """The metric by method and seed, NaN where a run failed; and whether higher is better."""
    results = {label: comparison.results[label] for label in comparison.recipes}
    whole = [r for own in results.values() for r in own.values() if "value" in r]
    if not whole:
        why = next(r["failed"] for own in results.values() for r in own.values())
        raise NeedError(f"every run failed; the first said: {why}")
    values = {label: [own[seed].get("value", float("nan")) for seed in sorted(own)] for label, own in results.items()}
    return values, bool(whole[0]["higher_is_better"])
