"""Parameters that a run's loss leaves out."""

from __future__ import annotations

import torch
from torch import nn

from ...kit.passes import buffers_kept
from ...recipe import Training
from ..data.open_data import Batches, Data
from .objective import Objective


def freeze_unused(model: nn.Module, objective: Objective, data: Data, settings: Training) -> None:
    """Freeze what the loss of a batch does not reach: of a loss of embeddings, the classifier behind them.

    One process leaves that where it is; several wait for the gradient of every parameter that is trained. All look at
    the same batch, so that all find the same.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    device = next(model.parameters()).device
    batches = Batches(data.train, settings.batch_size, seed=settings.seed, device=device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), buffers_kept(model):
        index, inputs, targets = next(batches.indexed())
        loss = objective(model, inputs, targets, index=index)
        if not loss.requires_grad:
            return
        for p, gradient in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
            p.requires_grad_(gradient is not None)
