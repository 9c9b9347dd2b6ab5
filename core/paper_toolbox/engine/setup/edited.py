"""The fresh model of a run, with all that its normalizers and compressors do to it before the training."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from ... import needs
from ...errors import NothingChanged
from ...kinds import Compressor, Normalizer
from ...kit import surgery
from ...kit.batch import forward
from ..compatibility.conflicts import Edits, layers_of, refuse_undone
from ..data.open_data import Batches, Data
from .methods import Methods
from .objective import batch_loss


def edited(model: nn.Module, methods: Methods, data: Data, batch_size: int, seed: int) -> nn.Module:
    """``model`` with the run's normalizers, and pruned at initialisation."""
    batches = Batches(data.train, batch_size)
    available = {"batches": batches, "loss": batch_loss(data.task), "generator": torch.Generator().manual_seed(seed)}
    parts: list[tuple[str, Normalizer | Compressor]] = [*methods.normalizers, *methods.compressors]
    done: dict[str, tuple[Edits, Counter[str]]] = {}
    for name, part in parts:
        verb: Any = part.apply if isinstance(part, Normalizer) else part.compress
        before = surgery.edits(model)
        try:
            model = verb(model, **needs.supply(verb, available, name))
        except NothingChanged:
            refuse_undone(name, model, done)  # why it found nothing, perhaps: it began by undoing that
            raise
        refuse_undone(name, model, done)
        new = [edit for edit in surgery.edits(model) if edit not in before]
        if not new and isinstance(part, Normalizer):
            raise NothingChanged(f"{name} changed nothing in {type(model).__name__}")
        done[name] = new, layers_of(model, new)
    with torch.no_grad():  # one forward, so that a misfit shows before the run starts
        inputs, _ = next(iter(Batches(data.train, min(2, batch_size), limit=2)))
        training = model.training
        forward(model.eval(), inputs)
        model.train(training)
    return model
