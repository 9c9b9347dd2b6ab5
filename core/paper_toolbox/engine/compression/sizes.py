"""How large a model is: parameters, those that are not zero, multiply-accumulates."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...kit import surgery
from ...kit.batch import forward
from ...kit.capture import evaluating
from ..data.open_data import Data


def sizes(model: nn.Module, data: Data) -> dict[str, int]:
    """Parameters, those that are not zero once folded, and multiply-accumulates of one sample."""
    folded = surgery.fold(copy.deepcopy(model))
    weights = [p.detach() for p in folded.parameters()]
    inputs, _ = data.validation.take(torch.tensor([0]))
    counter = FlopCounterMode(display=False)
    with counter, evaluating(folded), torch.no_grad():
        forward(folded, inputs)
    return {
        "parameters": sum(w.numel() for w in weights),
        "nonzero": sum(int(w.count_nonzero()) for w in weights),
        "macs": counter.get_total_flops() // 2,
    }
