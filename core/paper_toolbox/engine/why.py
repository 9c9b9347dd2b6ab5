"""Why methods go together or not: what a real start of each, of each pair and of all of them finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from torch import nn

from .. import catalog, needs
from ..catalog import Card
from ..errors import Conflict, ParamError, PluginError, ToolboxError
from ..host import Host
from ..kinds import VERBS, Part
from ..models.shapes import default_model
from ..recipe import Choice, Recipe
from .compatibility.case import Finding, cannot
from .compatibility.tiny import few
from .compatibility.traits import MEANING, traits_of
from .data.open_data import Data, open_data
from .setup.devices import accelerator_of
from .setup.models import open_model
from .setup.session import Session
from .train import start

WITH_CLASSES, WITH_VALUES = "digits", "diabetes"
PARTS = ("optimizer", "normalizer", "loss", "compressor", "regimen")
TOGETHER = "goes together"


class Why:
    """Answers for ``recipe``; unless its data source was ``given``, one is taken that suits the losses."""

    def __init__(self, recipe: Recipe, host: Host, *, given: bool = False) -> None:
        self.recipe, self.host, self.given = recipe, host, given
        self.opened: dict[str, Data] = {}

    def answer(self) -> dict[str, Any]:
        """Every method, every pair, and all together; of a single one, those installed that do not go with it."""
        choices = self.recipe.plugins
        if not choices:
            raise ParamError("name a method or several: toolbox why adamp+weight_norm")
        names = [choice.name for choice in choices]
        alone = {name: self.examine([name]) for name in names}
        found: dict[str, Any] = {"settings": self.settings()}
        found["methods"] = [self.about(choice) | outcome(alone[choice.name]) for choice in choices]
        if len(names) == 1:
            return found | {"with": list(self.survey(choices[0], alone[names[0]]))}
        pairs = {(a, b): self.examine([a, b]) for a, b in combinations(names, 2)}
        found["pairs"] = [
            {"methods": [a, b]} | outcome(lines, [*alone[a], *alone[b]]) for (a, b), lines in pairs.items()
        ]
        known = [finding for some in (*alone.values(), *pairs.values()) for finding in some]
        if len(names) > 2:
            all_of_them = self.examine(names)
            found["together"] = {**outcome(all_of_them), "lines": outcome(all_of_them, known)["lines"]}
        return found

    def examine(self, names: Iterable[str]) -> list[Finding]:
        """What the start of a run of these methods finds; nothing is trained."""
        try:
            return list(self.session(names).notes)
        except PluginError:
            raise
        except Conflict as error:
            return [cannot(str(error), *error.about)]
        except ToolboxError as error:
            return [cannot(str(error))]

    def session(self, names: Iterable[str]) -> Session:
        """A run of these methods on a part of the data, ready to start; who learns from a teacher gets one."""
        chosen = tuple(choice for choice in self.recipe.plugins if choice.name in set(names))
        recipe = dataclasses.replace(self.recipe, plugins=chosen)
        data = self.data(recipe)
        training = dataclasses.replace(recipe.training, data=recipe.training.data if self.given else data.source)
        recipe, accelerator = dataclasses.replace(recipe, training=training), accelerator_of(recipe)
        teacher = None if training.teacher else self.teacher(recipe, data)
        return start(recipe, self.host, data, None, accelerator, teacher=teacher)

    def data(self, recipe: Recipe) -> Data:
        """A small part of the run's data."""
        settings, source = recipe.training, recipe.training.data
        if not self.given:
            losses = [self.host.method(c.name, c.kind) for c in recipe.plugins if c.kind == "loss"]
            values = any("classification" not in loss.tasks and "regression" in loss.tasks for loss in losses)
            source = WITH_VALUES if values else WITH_CLASSES
        if source not in self.opened:
            opened = open_data(source, seed=settings.seed, validation=settings.validation, host=self.host)
            self.opened[source] = few(opened)
        return self.opened[source]

    def teacher(self, recipe: Recipe, data: Data) -> nn.Module | None:
        """A stand-in where a loss wants one."""
        losses = (self.host.build(c.name, c.kind, **c.fields) for c in recipe.plugins if c.kind == "loss")
        if not any("teacher" in traits_of(loss) for loss in losses):
            return None
        return open_model(recipe.training.model or default_model(data.task), data.task, self.host).eval()

    def settings(self) -> dict[str, str]:
        """What the answers hold for."""
        data = self.data(self.recipe)
        return {"data": data.source, "model": self.recipe.training.model or default_model(data.task)}

    def about(self, choice: Choice) -> dict[str, Any]:
        """Its kind, its traits and their meaning, and what it asks a run for."""
        part = self.host.build(choice.name, choice.kind, **choice.fields)
        traits = sorted(traits_of(part)) if isinstance(part, Part) else []
        asked = needs.of(getattr(part, VERBS[choice.kind]))
        wanted = {need: needs.MEANING[need] + ("" if must else " (optional)") for need, must in asked.items()}
        return {"name": choice.name, "kind": choice.kind, "traits": {t: MEANING[t] for t in traits}, "needs": wanted}

    def survey(self, mine: Choice, own: list[Finding]) -> Iterator[dict[str, Any]]:
        """Those installed that change what it finds ``own``; not those in whose place a run takes it."""
        refused = outcome(own)["outcome"] == "cannot"
        for card in catalog.cards():
            if card.kind not in PARTS or mine.kind not in PARTS or self._rivals(mine, card):
                continue
            asked = Why(dataclasses.replace(self.recipe, plugins=(mine, Choice(card.kind, card.name))), self.host)
            asked.given, asked.opened = self.given, self.opened
            found = asked.examine([mine.name, card.name])
            said = {f.line for f in (*own, *(asked.examine([card.name]) if found else ()))}
            new = [f for f in found if f.line not in said]
            if new or (refused and not found):
                yield {"name": card.name, "kind": card.kind, **outcome(new)}

    def _rivals(self, mine: Choice, other: Card) -> bool:
        """Whether a run takes one of the two anyway."""
        if mine.kind != other.kind:
            return False
        both = [self.host.method(name, mine.kind) for name in (mine.name, other.name)]
        return mine.name == other.name or not (
            mine.kind in ("normalizer", "compressor") or any(getattr(cls, "role", "") == "penalty" for cls in both)
        )


def outcome(found: Sequence[Finding], known: Sequence[Finding] = ()) -> dict[str, Any]:
    """The verdict and its reasons; what is ``known`` of fewer methods is not said again, unless it stops the run."""
    before = {finding.line for finding in known}
    told = [f for f in found if f.severity == "cannot" or f.line not in before]
    worst = next((s for s in ("cannot", "careful") if any(f.severity == s for f in told)), TOGETHER)
    return {"outcome": worst, "lines": [f.line for f in told]}
