"""The traits of a method: what it declares, what its attributes and needs say already, and those of what is inside."""

from __future__ import annotations

from collections.abc import Mapping

from ... import needs
from ...kinds import KINDS, TRAITS, VERBS, Compressor, Loss, Normalizer, Optimizer, Part
from ...kit.wrap import Wrapper

DERIVED: Mapping[str, str] = {
    "closure": "runs the model itself, as often as a step takes",
    "data": "looks at training data before the run starts",
    "edits": "changes the structure of the model",
    "loss_only": "works on the loss itself: the loop computes no gradient",
    "penalty": "is added to a criterion",
    "samples": "looks at the samples of a step",
    "scheduled": "sets its step size over the run itself",
    "teacher": "learns from a teacher",
}
MEANING: Mapping[str, str] = {**{str(trait): meaning for trait, meaning in TRAITS.items()}, **DERIVED}


def traits_of(part: Part) -> frozenset[str]:
    """All traits of a method; of a wrapper, those of the optimizer inside too."""
    found = {*part.traits, *_derived(part)}
    if isinstance(part, Wrapper):
        found |= traits_of(part.inner())
    return frozenset(found)


def _derived(part: Part) -> set[str]:
    kind = next(kind for kind, cls in KINDS.items() if isinstance(part, cls))
    asked = needs.of(getattr(part, VERBS[kind]))
    if isinstance(part, Optimizer):
        own = {"gradient": {"closure"}, "loss": {"closure", "loss_only"}, "samples": {"closure", "samples"}}
        return own.get(part.closure, set()) | ({"scheduled"} if part.scheduled else set())
    if isinstance(part, Normalizer | Compressor):
        return {"edits"} | ({"data"} if "batches" in asked else set())
    teacher = {"teacher"} if any(need.startswith("teacher") for need in asked) else set()
    return teacher | ({"penalty"} if isinstance(part, Loss) and part.role == "penalty" else set())
