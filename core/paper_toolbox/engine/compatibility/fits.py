"""Rules: what the training loop can do for an optimizer, a regimen and losses, and for which settings it cannot."""

from __future__ import annotations

from collections.abc import Iterator

from ... import needs
from ...kinds import Optimizer
from ...kit.wrap import Wrapper
from .case import Case, Finding, Rule, cannot, careful


def asks(optimizer: Optimizer | None) -> tuple[str, bool]:
    """What the step of the run's optimizer takes, and whether it sets its step size itself."""
    return ("none", False) if optimizer is None else (optimizer.closure, optimizer.scheduled)


def processes(case: Case) -> Iterator[Finding]:
    """What is drawn, solved or trained beside the model is each process's own."""
    if case.world > 1 and (own := case.methods.stateful):
        line = f"{', '.join(own)}: a loss with parameters of its own trains in one process only"
        yield cannot(line, *own, "processes")
    if case.world > 1 and asks(case.methods.optimizer)[0] in ("loss", "samples"):
        line = "works on the loss itself, in one process only: what it draws and solves is not shared"
        yield cannot(f"{case.optimizer} {line}", case.optimizer, "processes")


def regimens(case: Case) -> Iterator[Finding]:
    """A regimen is the loop itself."""
    regimen, closure = case.regimen, asks(case.methods.optimizer)[0]
    if case.methods.regimen is None:
        return
    if closure != "none" or case.settings.accumulate > 1:
        line = f"{regimen} decides itself when to step: it takes no accumulate, and no optimizer with closures"
        yield cannot(line, regimen, case.optimizer if closure != "none" else "accumulate")
    for name, asked in _beyond_outputs(case):
        line = f"{regimen}: a regimen's losses see outputs and targets alone, not {asked}"
        yield cannot(line, regimen, name)


def closures(case: Case) -> Iterator[Finding]:
    """What the loop does between backward and step, an optimizer that runs the model itself does without."""
    optimizer, closure = case.optimizer, asks(case.methods.optimizer)[0]
    if case.settings.precision == "fp16" and closure != "none":
        line = f"{optimizer} evaluates the loss itself and cannot scale it for fp16: use --set precision=bf16"
        yield cannot(line, optimizer, "precision")
    if case.settings.clip_norm is not None and closure in ("loss", "samples"):
        line = f"{optimizer} computes no gradient that clip_norm could clip: leave clip_norm out"
        yield cannot(line, optimizer, "clip_norm")
    for name, asked in _beyond_outputs(case) if closure == "samples" else ():
        line = f"{optimizer} looks at single samples: its losses see outputs and targets alone, not {asked}"
        yield cannot(line, optimizer, name)


def schedules(case: Case) -> Iterator[Finding]:
    """One of the two sets the step size."""
    settings = case.settings
    chosen = case.recipe.origins.get("schedule") in ("flag", "--set")  # a run's own recipe.yaml holds the default too
    differs = settings.schedule != type(settings)().schedule
    if asks(case.methods.optimizer)[1] and (settings.warmup or chosen or differs):
        line = f"{case.optimizer} sets its step size over the run itself: leave out schedule and warmup"
        yield cannot(line, case.optimizer, "schedule")


def teachers(case: Case) -> Iterator[Finding]:
    """A teacher that nobody listens to."""
    asked = case.methods.asked(*(name for name, _ in case.methods.losses))
    if case.settings.teacher is not None and not any(need.startswith("teacher") for need in asked):
        line = "teacher: no loss of this run learns from one; name one that does, such as --plugin sinkd"
        yield cannot(line, "teacher")


def engines(case: Case) -> Iterator[Finding]:
    """Only rules are compiled; the setting is not looked at by the others."""
    inner = case.methods.optimizer
    while isinstance(inner, Wrapper):
        inner = inner.inner()
    if case.settings.engine == "compiled" and (inner is None or "engine" not in needs.of(inner.build)):
        name = case.optimizer or "the default optimizer"
        yield careful(f"engine=compiled changes nothing: {name} is not written as a rule", name, "engine")


def _beyond_outputs(case: Case) -> Iterator[tuple[str, str]]:
    """(name, what it asks for) of every loss that wants more than outputs and targets."""
    for name, _ in case.methods.losses:
        if asked := case.methods.asked(name):
            yield name, ", ".join(sorted(asked))


RULES: tuple[Rule, ...] = (processes, regimens, closures, schedules, teachers, engines)
