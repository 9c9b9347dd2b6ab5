"""What a verb may ask for: its keyword-only parameters, checked once and supplied by the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .errors import NeedError, PluginError

MEANING: Mapping[str, str] = {
    "features": "the input of the model's last linear layer on this batch, (N, D)",
    "teacher_logits": "a frozen teacher's outputs on the same batch, like the logits",
    "teacher_features": "the input of the teacher's last linear layer, (N, D)",
    "index": "position of each sample in the training part, (N,) int64",
    "groups": "the group of each sample, (N,) int64",
    "inputs": "the batch that went into the model",
    "model": "the model itself",
    "step": "optimizer steps done so far, an int",
    "steps_total": "optimizer steps of the whole run, an int",
    "steps_per_epoch": "optimizer steps of one epoch, an int",
    "progress": "share of the run that is done, from 0 to 1",
    "engine": "how an optimizer's rule runs: 'auto', 'eager' or 'compiled'",
    "storage": "how an optimizer keeps its weights and state between steps",
    "batches": "re-iterable of (inputs, targets) from the training part",
    "loss": "function (logits, targets) -> scalar, the run's criterion",
    "teacher": "a frozen model in evaluation mode",
    "baseline": "reference input, broadcastable to the inputs",
    "layer": "path of the layer to look at",
    "generator": "seeded torch.Generator",
    "history": "metrics of every epoch so far, a list of dictionaries",
}

HINTS: Mapping[str, str] = {
    "teacher_logits": "name a trained run with --teacher RUN",
    "teacher_features": "name a trained run with --teacher RUN",
    "teacher": "name a trained run with --teacher RUN",
    "groups": "use data that carries groups",
}


def of(verb: Callable[..., Any]) -> dict[str, bool]:
    """What ``verb`` asks for, and whether it must have it; a name not in ``MEANING`` is the plugin's error.

    Where it takes ``**given``, it asks for what the same verb of the class above does, too.
    """
    parameters = inspect.signature(verb).parameters.values()
    asked = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in parameters) and (above := _above(verb)):
        asked = of(above) | asked
    if unknown := asked.keys() - MEANING.keys():
        raise PluginError(f"{_name(verb)} asks for {', '.join(sorted(unknown))}; known: {', '.join(MEANING)}")
    return asked


def check(verb: Callable[..., Any], available: Collection[str], name: str | None = None) -> None:
    """Refuse, before anything runs, a verb that must have what ``available`` lacks."""
    missing = sorted(need for need, required in of(verb).items() if required and need not in available)
    if missing:
        hints = "; ".join(dict.fromkeys(HINTS[m] for m in missing if m in HINTS))
        what = ", ".join(f"{m} ({MEANING[m]})" for m in missing)
        raise NeedError(
            f"{name or _name(verb)} needs {what}, which this run does not provide" + (f": {hints}" if hints else "")
        )


def supply(verb: Callable[..., Any], available: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """The part of ``available`` that ``verb`` asks for."""
    check(verb, available.keys(), name)
    return {need: available[need] for need in of(verb) if need in available}


def _above(verb: Callable[..., Any]) -> Callable[..., Any] | None:
    """The method that ``verb``, a bound one, overrides."""
    owner, own, name = getattr(verb, "__self__", None), getattr(verb, "__func__", None), getattr(verb, "__name__", "")
    chain = [vars(cls)[name] for cls in type(owner).__mro__ if name in vars(cls)]
    above: Callable[..., Any] | None = None
    if own in chain[:-1]:
        above = chain[chain.index(own) + 1].__get__(owner)
    return above


def _name(verb: Callable[..., Any]) -> str:
    return getattr(verb, "__qualname__", type(verb).__qualname__)
