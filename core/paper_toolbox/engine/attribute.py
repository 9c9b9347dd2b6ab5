"""Attribute: why a trained model answers as it does, as pictures, arrays and faithfulness figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import artifact, needs
from ..artifact import Artifact
from ..errors import ArtifactError, NeedError
from ..files import replacing, write_json
from ..host import Host
from ..kit.capture import evaluating
from ..recipe import Choice
from .faithfulness import faithfulness
from .pictures import attribution_sheet
from .restore import load_data, load_model


def attribute(
    run: Artifact,
    choice: Choice,
    out: Path | None,
    host: Host,
    *,
    data: str | None = None,
    samples: int = 6,
    seed: int = 0,
    layer: str | None = None,
) -> dict[str, Any]:
    """Explain the predictions on ``samples`` validation samples: picture, npz and figures go to ``out``."""
    if choice.kind != "attributor":
        raise NeedError(
            f"{choice.name} is of kind {choice.kind}; attribute takes attributors (see `toolbox list attributor`)"
        )
    folder = out or artifact.free_name(run.folder / f"attribution-{choice.name}")
    if folder.exists():
        raise ArtifactError(f"{folder} already exists: choose another --out, or remove it")
    method = host.build(choice.name, choice.kind, **choice.fields)
    opened, model = load_data(run, host, data), load_model(run, host)
    inputs, targets = opened.validation.take(torch.arange(min(samples, len(opened.validation))))
    if not isinstance(inputs, Tensor):
        raise NeedError(f"{choice.name} explains models of one input; {opened.source} has {len(opened.task.inputs)}")

    def explain(model: nn.Module, inputs: Tensor, looked_at: Tensor) -> Tensor:
        available: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed)}
        if layer is not None:
            available["layer"] = layer
        found: Tensor = method.attribute(
            model, inputs, looked_at, **needs.supply(method.attribute, available, choice.name)
        )
        return found.detach()

    with evaluating(model), torch.no_grad():
        outputs = model(inputs)
    regression = opened.task.kind == "regression"
    predictions = torch.zeros(len(inputs), dtype=torch.int64) if regression else outputs.argmax(1)
    maps = explain(model, inputs, predictions)
    figures = faithfulness(
        model,
        inputs,
        predictions,
        maps,
        attribute=explain,
        generator=torch.Generator().manual_seed(seed),
        score="output" if regression else "probability",
    )
    artifact.create(folder)
    attribution_sheet(inputs, maps, targets, predictions, folder / "attribution.png", opened.task.classes)
    with replacing(folder / "attribution.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, inputs=inputs, attributions=maps, targets=targets, predictions=predictions, outputs=outputs)
    report = {"method": choice.name, "fields": choice.fields, "run": str(run.folder), "faithfulness": figures}
    write_json(folder / "attribution.json", report)
    return {**report, "picture": str(folder / "attribution.png"), "arrays": str(folder / "attribution.npz")}
