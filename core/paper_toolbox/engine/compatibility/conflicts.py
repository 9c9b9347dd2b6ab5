"""What of a run cannot go together, and of what its user should know: decided by rules, before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from ...errors import Conflict
from ...kit import quant
from ..loop import shards
from . import clashes, fits
from .case import Case, Finding, Rule

RULES: Sequence[Rule] = (*fits.RULES, *clashes.RULES, *shards.RULES)
Edits = list[dict[str, Any]]


def find(case: Case) -> list[Finding]:
    """All that the rules find."""
    return [finding for rule in RULES for finding in rule(case)]


def refuse(case: Case) -> list[Finding]:
    """Raise the first ``Conflict``; without one, what the user should be careful about."""
    found = find(case)
    for finding in found:
        if finding.severity == "cannot":
            raise Conflict(finding.line, finding.about)
    return found


def layers_of(model: nn.Module, edits: Edits) -> Counter[str]:
    """How many layers there are of the classes that ``edits`` brought in."""
    brought = {edit["class"] for edit in edits}
    classes = (parametrize.type_before_parametrizations(layer) for layer in model.modules())
    return Counter(name for cls in classes if (name := f"{cls.__module__}:{cls.__qualname__}") in brought)


def refuse_undone(name: str, model: nn.Module, earlier: Mapping[str, tuple[Edits, Counter[str]]]) -> None:
    """Refuse ``name`` if layers that ``earlier`` methods brought into the model are gone behind it."""
    for other, (edits, before) in earlier.items():
        if before - layers_of(model, edits):
            line = (
                f"{name} undoes what {other} did to the model before the training begins: leave one of them out, or "
                f"take {name} after the training: toolbox compress RUN --plugin {name}"
            )
            raise Conflict(line, (other, name))
    if quant.planned(model) is not None:
        line = f"{name} is the last thing done to a model, after the training: toolbox compress RUN --plugin {name}"
        raise Conflict(line, (name,))
