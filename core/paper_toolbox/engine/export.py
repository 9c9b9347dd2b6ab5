"""Export: a run folder becomes ``model.onnx``, checked against PyTorch on real inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import artifact
from ..artifact import Artifact
from ..errors import ArtifactError
from ..files import write_json
from ..host import Host
from ..kit import quant
from ..provenance import provenance as made_with
from ..recipe import Choice, Recipe
from .data.open_data import Batches
from .loop.evaluate import target_scale
from .loop.restore import load_data, load_model
from .onnx.graph import Precision, export_onnx
from .reports.interval import Interval, interval_of

TOLD = (  #: the keys of what a file says about itself; other tools leave theirs beside them
    *("recipe", "preprocessing", "figures", "interval", "plugins", "chain", "threads", "parent", "weights_sha256"),
    "environment",
)


def export(
    run: Artifact, out: Path | None, host: Host, *, precision: Precision | None = None, opset: int | None = None
) -> dict[str, Any]:
    """Write the model of ``run``; ``precision`` None takes int8 where the run planned it, else fp32."""
    model = load_model(run, host)
    planned = quant.planned(model) is not None
    precision = precision or ("int8" if planned else "fp32")
    promised, scale = None, target_scale(run.summary["preprocessing"])
    if planned and precision == "int8":  # compress measured this very file; its figure is what must come out again
        promised = run.figures[run.task.metric] / scale
    path = out or run.folder / "model.onnx"  # the run's own file may be written again, another one never
    if path.suffix != ".onnx":
        raise ArtifactError(f"--out {path}: must end in .onnx, as in {path.parent / 'model.onnx'}")
    artifact.refuse_existing(out)
    data = load_data(run, host)
    interval = run.summary.get("interval") or interval_of(model, run.figures[run.task.metric], data)
    report = export_onnx(
        model,
        run.task,
        Batches(data.validation, 64),
        path,
        precision=precision,
        opset=opset,
        metadata=provenance(run, interval=interval),
        promised=promised,
        calibration=Batches(data.train, 64, seed=run.recipe.training.seed),
    )
    for name in ("rmse_onnx", "rmse_torch"):  # in the targets' unit, as everywhere
        if name in report["parity"]:
            report["parity"][name] *= scale
    write_json(path.with_name(f"{path.name}.json"), report)
    return report


def provenance(
    run: Artifact, more: Sequence[Choice] = (), finetune: Recipe | None = None, interval: Interval | None = None
) -> dict[str, str]:
    """What the ONNX file says about itself: JSON by key. ``more`` are compressors applied since, and fine-tuned as.

    ``interval`` is 95 % of the metric.
    """
    summary = run.summary
    content = {
        "recipe": run.recipe.unobserved().to_dict(),
        "preprocessing": summary["preprocessing"],
        "figures": summary["figures"],
        "interval": interval,
        "plugins": [*summary["plugins"], *made_with(more)],
        "chain": chain(run, more, finetune),
        "threads": summary.get("threads"),
        "parent": str(run.folder),
        "weights_sha256": summary["weights_sha256"],
        "environment": summary["environment"],
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in content.items()}


def chain(run: Artifact, more: Sequence[Choice], finetune: Recipe | None) -> list[dict[str, Any]]:
    """Every compressor applied to the model so far; those of one command share its number and its fine-tuning."""
    before = list(run.summary.get("chain", []))
    number = 1 + max((each.get("command", 0) for each in before), default=0)
    recipe = finetune.to_dict() if finetune else None
    return [*before, *({"name": c.name, "fields": c.fields, "command": number, "finetune": recipe} for c in more)]
