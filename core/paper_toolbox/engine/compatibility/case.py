"""A run before it starts, as the rules look at it, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

from ...kinds import Part
from ...recipe import Recipe, Training
from ...task import Task
from ..setup.methods import Methods
from .traits import traits_of


@dataclass(frozen=True)
class Finding:
    """Why methods, or methods and settings, do not go together (``cannot``), or not as it seems (``careful``).

    ``about`` names them; ``line`` says why, and what to do instead.
    """

    severity: Literal["cannot", "careful"]
    about: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Case:
    """What a run is made of. ``fresh``: its model is drawn anew; ``model`` has the run's edits, once there is one."""

    recipe: Recipe
    methods: Methods
    task: Task
    world: int = 1
    fresh: bool = False
    model: nn.Module | None = None

    @property
    def settings(self) -> Training:
        """The run's own."""
        return self.recipe.training

    @property
    def optimizer(self) -> str:
        """Its name; empty where none is chosen."""
        return self._first("optimizer")

    @property
    def regimen(self) -> str:
        """Its name; empty where none is chosen."""
        return self._first("regimen")

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Every method of the run by name."""
        m = self.methods
        alone = {self.optimizer: m.optimizer, self.regimen: m.regimen}
        return {name: part for name, part in alone.items() if part is not None} | dict(
            [*m.normalizers, *m.compressors, *m.losses]
        )

    @cached_property
    def traits(self) -> dict[str, frozenset[str]]:
        """Those of every method, by its name."""
        return {name: traits_of(part) for name, part in self.parts.items()}

    def having(self, trait: str) -> list[str]:
        """The methods that have ``trait``, in the order of the run."""
        return [name for name, own in self.traits.items() if trait in own]

    def _first(self, kind: str) -> str:
        return next((c.name for c in self.recipe.plugins if c.kind == kind), "")


Rule = Callable[[Case], Iterable[Finding]]


def cannot(line: str, *about: str) -> Finding:
    """It is refused before anything is trained."""
    return Finding("cannot", about, line)


def careful(line: str, *about: str) -> Finding:
    """It runs, and the user should know."""
    return Finding("careful", about, line)
