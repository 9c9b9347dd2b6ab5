"""Which fields of a run's methods are worth tuning, and values drawn for them."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

from ...host import Host
from ...kit.wrap import Wrapper, named
from ...recipe import Choice, Recipe

AROUND = 10.0  # how far from its default a step size that declares no range is tried, both ways


@dataclasses.dataclass(frozen=True)
class Range:
    """A field and where to look for its value."""

    kind: str
    method: str
    field: str
    low: float
    high: float
    whole: bool = False

    def draw(self, source: random.Random) -> Any:
        """Evenly, or evenly by the logarithm where the range spans a factor of ten."""
        if self.low > 0 and self.high >= 10 * self.low:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        return round(value) if self.whole else value


def ranges(recipe: Recipe, host: Host) -> list[Range]:
    """Of every numeric field that declares one, and of each optimizer's ``lr``."""
    found = []
    for choice in recipe.plugins:
        method = host.build(choice.name, choice.kind, **choice.fields)
        for field in dataclasses.fields(method):
            if span := field.metadata.get("search") or _of_a_step_size(method, field.name):
                whole = isinstance(getattr(method, field.name), int)
                low, high = map(float, span)
                found.append(Range(choice.kind, choice.name, field.name, low, high, whole))
    return found


def _of_a_step_size(method: Any, field: str) -> tuple[float, float] | None:
    if field != "lr":
        return None
    usual = method.lr
    if usual is None and isinstance(method, Wrapper):
        usual = getattr(named(method.base), "lr", None)
    return (usual / AROUND, usual * AROUND) if usual else None


def drawn(recipe: Recipe, spans: list[Range], count: int, seed: int) -> list[Recipe]:
    """``count`` recipes, the first as it is; none is drawn where nothing can be tuned."""
    source = random.Random(seed)
    return [
        recipe,
        *(with_values(recipe, {r: r.draw(source) for r in spans}) for _ in range(count - 1 if spans else 0)),
    ]


def with_values(recipe: Recipe, values: dict[Range, Any]) -> Recipe:
    """The recipe with these fields set."""

    def changed(choice: Choice) -> Choice:
        own = {r.field: v for r, v in values.items() if (r.kind, r.method) == (choice.kind, choice.name)}
        return dataclasses.replace(choice, fields=choice.fields | own)

    return dataclasses.replace(recipe, plugins=tuple(map(changed, recipe.plugins)))
