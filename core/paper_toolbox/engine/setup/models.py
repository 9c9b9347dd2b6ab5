"""Opening models: built-in and plugin architectures, functions of modules, and other libraries' models."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import torch
from torch import Tensor, nn

from ... import catalog
from ...errors import ModelError
from ...host import Host
from ...kit.batch import Inputs, forward
from ...kit.capture import evaluating
from ...task import Task
from ..data.sources import call, imported
from .libraries import LIBRARIES, PINS


def open_model(
    source: str, task: Task, host: Host, options: Mapping[str, Any] | None = None, *, weights: bool = True
) -> nn.Module:
    """The model that ``source`` names, built for ``task`` and tried on one batch.

    ``NAME?field=value`` is a method of kind ``model``, ``module:function`` is called with the task; ``hf:``, ``timm:``
    and ``torchvision:`` are other libraries. ``options`` come on top of those in the source. ``weights=False`` skips
    pretrained weights that are about to be overwritten.
    """
    body, _, query = source.partition("?")
    scheme, _, rest = body.partition(":")
    chosen = dict(parse_qsl(query, keep_blank_values=True)) | dict(options or {})
    if not rest or scheme == "model":
        model = host.method(rest or scheme, "model").from_options(chosen, rest or scheme).build(task)
    elif scheme in LIBRARIES:
        model = LIBRARIES[scheme](rest, task, chosen, weights)
    else:
        model = _opened(source, scheme, rest, task, host)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{source} gave {type(model).__name__}: it must give a torch.nn.Module")
    _try(model, source, task)
    return model


def resolved_source(source: str, host: Host) -> str:
    """``source`` with every field of a model method written out, so that a later default changes nothing.

    One that names files gets their sums, so that neither does a later change of these.
    """
    body, _, query = source.partition("?")
    scheme, _, name = body.partition(":")
    chosen = dict(parse_qsl(query, keep_blank_values=True))
    if name and scheme in PINS:
        return f"{body}?{urlencode(chosen | PINS[scheme](name, chosen))}"
    if name and scheme != "model":
        return source
    fields = host.method(name or scheme, "model").from_options(chosen, name or scheme).options()
    plain = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in fields.items()}
    return f"{body}?{urlencode(plain)}" if plain else body


def example(task: Task, count: int = 2) -> Inputs:
    """A batch of zeros as ``task`` lays it out; masks are ones."""
    made: dict[str, Tensor] = {}
    for spec in task.inputs:
        mask = spec.dtype == "int64" and spec.vocabulary is None
        made[spec.name] = torch.full((count, *spec.shape), int(mask), dtype=getattr(torch, spec.dtype))
    if task.layout == "dict":
        return made
    return tuple(made.values()) if task.layout == "tuple" else next(iter(made.values()))


def _opened(source: str, scheme: str, rest: str, task: Task, host: Host) -> Any:
    """From a guest's opener, or from ``module:function``."""
    host.load_all("opener")
    model = host.manager.hook.open_model(source=source, task=task)
    if model is not None:
        return model
    if (function := imported(scheme, rest, source, ModelError)) is not None:
        return call(function, source, ModelError, task)
    names = [card.name for card in catalog.cards() if card.kind == "model"]
    near = difflib.get_close_matches(scheme, LIBRARIES, n=1)
    hint = f"; did you mean {near[0]}:{rest}?" if near else ""
    schemes = ", ".join(f"{known}:NAME" for known in LIBRARIES)
    raise ModelError(f"unknown model source {source!r}{hint} (known: {', '.join(names)}, {schemes}, module:function)")


def _try(model: nn.Module, source: str, task: Task) -> None:
    """Refuse, before anything is trained, a model that does not take the data or answers in another shape."""
    count = 2
    try:
        with torch.no_grad(), evaluating(model):
            outputs = forward(model, example(task, count))
    except (
        RuntimeError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        shapes = ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in task.inputs)
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{source} does not take this data's inputs ({shapes}): {said[0]}") from error
    steps = task.inputs[0].shape[:1] if task.kind == "tokens" else ()
    expected = (count, *steps, task.outputs)
    shape = tuple(outputs.shape)
    wider = task.kind == "tokens" and shape[:-1] == expected[:-1] and shape[-1] > task.outputs  # a larger vocabulary
    if shape != expected and not wider:
        raise ModelError(f"{source} gives outputs of shape {shape}; this {task.kind} task needs {expected}")
