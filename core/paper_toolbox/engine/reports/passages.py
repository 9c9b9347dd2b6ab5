"""What a model of token ids looked at: passages whose tokens are shaded by gradient times embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...artifact import Artifact
from ...kit.batch import forward, tensors
from ...kit.capture import evaluating
from ...kit.surgery import find
from ..setup.objective import IGNORED
from .outcome import Outcome
from .run_pictures import samples

LONGEST = 160  # tokens shown of a passage
Passage = dict[str, Any]


def passages(run: Artifact, found: Outcome) -> list[tuple[str, list[Passage]]]:
    """(title, passages): right ones and wrong ones; nothing where inputs are no ids, or are not embedded."""
    layers = [layer for _, layer in find(found.model, nn.Embedding)]
    if not layers or all(spec.vocabulary is None for spec in run.task.inputs) or run.task.kind == "regression":
        return []
    return [(title, [_passage(found, layers[0], int(i)) for i in some]) for title, some in samples(found)]


def _passage(found: Outcome, layer: nn.Module, number: int) -> Passage:
    """One answer: what it was, what would have been right, and (token, share of the largest weight, -1…1)."""
    sample, place = _where(found, number)
    inputs, _ = found.data.validation.take(torch.tensor([sample]))
    task, answer = found.data.task, int(found.predictions[number])
    ids = next(x for x, spec in zip(tensors(inputs), task.inputs, strict=True) if spec.vocabulary is not None)[0]
    weights = _weights(found.model, layer, inputs, place, answer)
    end = len(ids) if place is None else place + 1
    known = task.classes if task.kind == "tokens" else ()
    shown = range(max(0, end - LONGEST), end)
    largest = max((abs(float(weights[i])) for i in shown), default=0.0) or 1.0
    tokens = [(_name(known, int(ids[i])), round(float(weights[i]) / largest, 3)) for i in shown]
    sure = float(found.outputs[number].softmax(0).max())
    names = [_name(task.classes, k) for k in (answer, int(found.targets[number]))]
    return {"tokens": tokens, "answer": names[0], "right": names[1], "sure": sure}


def _where(found: Outcome, number: int) -> tuple[int, int | None]:
    """Sample and position of an answer; a class belongs to its whole sample."""
    if found.data.task.kind != "tokens":
        return number, None
    sample, place = (found.data.validation.targets != IGNORED).nonzero()[number].tolist()
    return sample, place


def _weights(model: nn.Module, layer: nn.Module, inputs: Any, place: int | None, answer: int) -> Tensor:
    """Gradient of one output by each token's embedding, times the embedding: (T,)."""
    seen: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad(), evaluating(model):
            outputs = forward(model, inputs)[0]  # (T, V), or (C,)
            score = outputs[answer] if place is None else outputs[place, answer]
            (gradient,) = torch.autograd.grad(score, seen[:1])
    finally:
        handle.remove()
    return (gradient * seen[0].detach()).sum(-1)[0]


def _name(classes: Any, number: int) -> str:
    return str(classes[number]).replace("\n", "↵") if number < len(classes) else f"{number} "
