"""Attribute: why a trained model answers as it does, as pictures, arrays and faithfulness figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import artifact, needs
from ..artifact import Artifact
from ..errors import NeedError
from ..files import replacing, write_json
from ..host import Host
from ..kit.capture import evaluating
from ..recipe import Choice
from .loop.restore import load_data, load_model
from .reports.faithfulness import faithfulness
from .reports.pictures import attribution_sheet


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
        raise NeedError(f"{choice.name} is of kind {choice.kind}; see `toolbox list attributor`")
    folder = out or artifact.free_name(run.folder / f"attribution-{choice.name}")
    artifact.refuse_existing(folder)
    opened, model = load_data(run, host, data), load_model(run, host)
    inputs, targets = opened.validation.take(torch.arange(min(samples, len(opened.validation))))
    if not isinstance(inputs, Tensor):
        raise NeedError(f"{choice.name} explains models of one input; {opened.source} has {len(opened.task.inputs)}")
    explain = _explainer(host.build(choice.name, choice.kind, **choice.fields), choice.name, seed, layer)
    arrays = _explained(model, inputs, targets, explain, regression=opened.task.kind == "regression")
    figures = faithfulness(
        model,
        inputs,
        arrays["predictions"],
        arrays["attributions"],
        attribute=explain,
        generator=torch.Generator().manual_seed(seed),
        score="output" if opened.task.kind == "regression" else "probability",
    )
    report = {"method": choice.name, "fields": choice.fields, "run": str(run.folder), "faithfulness": figures}
    _write(folder, arrays, report, opened.task.classes)
    return {**report, "picture": str(folder / "attribution.png"), "arrays": str(folder / "attribution.npz")}


def _explainer(method: Any, name: str, seed: int, layer: str | None) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """(model, inputs, outputs looked at) -> attributions; each call draws the same random numbers."""

    def explain(model: nn.Module, inputs: Tensor, looked_at: Tensor) -> Tensor:
        available: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed)}
        if layer is not None:
            available["layer"] = layer
        found: Tensor = method.attribute(model, inputs, looked_at, **needs.supply(method.attribute, available, name))
        return found.detach()

    return explain


def _explained(
    model: nn.Module, inputs: Tensor, targets: Tensor, explain: Callable[..., Tensor], *, regression: bool
) -> dict[str, Tensor]:
    with evaluating(model), torch.no_grad():
        outputs = model(inputs)
    predictions = torch.zeros(len(inputs), dtype=torch.int64) if regression else outputs.argmax(1)
    arrays = {"inputs": inputs, "targets": targets, "predictions": predictions, "outputs": outputs}
    return arrays | {"attributions": explain(model, inputs, predictions)}


def _write(folder: Path, arrays: dict[str, Tensor], report: dict[str, Any], classes: tuple[str, ...]) -> None:
    inputs, maps, targets = arrays["inputs"], arrays["attributions"], arrays["targets"]
    with artifact.created(folder) as new:
        attribution_sheet(inputs, maps, targets, arrays["predictions"], new / "attribution.png", classes)
        with replacing(new / "attribution.npz") as temporary, temporary.open("wb") as file:
            content: dict[str, Any] = {name: array.numpy() for name, array in arrays.items()}
            np.savez(file, **content)
        write_json(new / "attribution.json", report)
