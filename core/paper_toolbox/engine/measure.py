"""Measure: figures of a trained model, its own and those of diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import needs
from ..artifact import Artifact
from ..errors import NeedError
from ..host import Host
from ..recipe import Choice
from .compression.sizes import sizes
from .data.open_data import Batches
from .loop.evaluate import evaluate, target_scale
from .loop.restore import load_data, load_model
from .setup.objective import batch_loss


def measure(run: Artifact, choices: Sequence[Choice], host: Host, *, data: str | None = None) -> dict[str, Any]:
    """Loss, metric, parameters and multiply-accumulates on the validation part, and what each diagnostic finds."""
    for choice in choices:
        if choice.kind != "diagnostic":
            raise NeedError(
                f"{choice.name} is of kind {choice.kind}; measure takes diagnostics (see `toolbox list diagnostic`)"
            )
    opened, model = load_data(run, host, data), load_model(run, host)
    batches = Batches(opened.validation, 256)
    figures = evaluate(model, batches, opened.task, target_scale(opened.preprocessing))
    found: dict[str, Any] = {"run": str(run.folder), "data": opened.source, **figures, **sizes(model, opened)}
    for choice in choices:
        method = host.build(choice.name, choice.kind, **choice.fields)
        available = {"loss": batch_loss(opened.task), "history": run.history()}
        found[choice.name] = method.measure(model, batches, **needs.supply(method.measure, available, choice.name))
    return found
