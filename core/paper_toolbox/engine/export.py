"""Export: a run folder becomes ``model.onnx``, checked against PyTorch on real inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..errors import ArtifactError
from ..files import write_json
from ..host import Host
from ..kit import quant
from .data import Batches
from .evaluate import target_scale
from .onnx_export import Precision, export_onnx
from .restore import load_data, load_model


def export(
    run: Artifact, out: Path | None, host: Host, *, precision: Precision | None = None, opset: int | None = None
) -> dict[str, Any]:
    """Write the model of ``run``; ``precision`` None takes int8 where the run planned it, else fp32."""
    model = load_model(run, host)
    planned = quant.planned(model) is not None
    precision = precision or ("int8" if planned else "fp32")
    promised = None
    if planned and precision == "int8":  # compress measured this very file; its figure is what must come out again
        promised = run.figures[run.task.metric] / target_scale(run.summary["preprocessing"])
    path = out or run.folder / "model.onnx"
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder: --out takes a file name such as {path / 'model.onnx'}")
    data = load_data(run, host)
    report = export_onnx(
        model,
        run.task,
        Batches(data.validation, 64),
        path,
        precision=precision,
        opset=opset,
        metadata=provenance(run),
        promised=promised,
        calibration=Batches(data.train, 64, seed=run.recipe.training.seed),
    )
    write_json(path.with_suffix(".json"), report)
    return report


def provenance(run: Artifact) -> dict[str, str]:
    """What the ONNX file says about itself: JSON by key."""
    summary = run.summary
    content = {
        "recipe": run.recipe.to_dict(),
        "preprocessing": summary["preprocessing"],
        "figures": summary["figures"],
        "plugins": summary["plugins"],
        "chain": summary.get("chain", []),
        "parent": str(run.folder),
        "weights_sha256": summary["weights_sha256"],
        "environment": summary["environment"],
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in content.items()}
