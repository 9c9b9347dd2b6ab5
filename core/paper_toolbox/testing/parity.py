"""A model beside what it became: its outputs, what of it is zero, and what ONNX Runtime makes of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..kit import surgery
from ..kit.batch import Inputs, forward, tensors
from ..kit.capture import evaluating


@torch.no_grad()
def outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    """The outputs in evaluation mode."""
    with evaluating(model):
        return forward(model, inputs)


def zero_entries(model: nn.Module) -> dict[str, Tensor]:
    """Where the weights that a folded copy would hold are zero, by name."""
    folded = surgery.fold(copy.deepcopy(model))
    return {name: p.detach() == 0 for name, p in folded.named_parameters() if p.ndim > 1}


def nonzero(model: nn.Module) -> int:
    """Parameters that a folded copy would hold, zeros of weight matrices left out."""
    folded = surgery.fold(copy.deepcopy(model))
    return sum(int(p.count_nonzero()) if p.ndim > 1 else p.numel() for p in folded.parameters())


def same_in_onnx(model: nn.Module, given: Sequence[Inputs], file: Path) -> None:
    """Export with a free batch axis, and compare with ONNX Runtime on the CPU on all the inputs ``given``."""
    import onnxruntime

    inputs, batch = given[0], torch.export.Dim("batch")
    free: Any = {name: {0: batch} for name in inputs} if isinstance(inputs, Mapping) else ({0: batch},)
    arguments: dict[str, Any] = {"args": (inputs,)}
    if isinstance(inputs, Mapping):
        arguments = {"args": (), "kwargs": dict(inputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(model, **arguments, f=file, dynamic_shapes=free, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    for x in given:
        got = session.run(None, dict(zip(names, [t.numpy() for t in tensors(x)], strict=True)))[0]
        torch.testing.assert_close(torch.from_numpy(got), outputs(model, x), atol=1e-4, rtol=1e-4)
