"""Run: an ONNX file on data, in ONNX Runtime; what it needs to know stands in the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ExportError
from ..host import Host
from ..recipe import Recipe
from .data.open_data import Batches, Data, open_data
from .onnx.run import read_metadata, read_task, run_onnx


def run(
    path: Path,
    host: Host,
    *,
    data: str | None = None,
    provider: str = "auto",
    batch_size: int = 64,
    bench: bool = False,
    nodes: bool = False,
) -> dict[str, Any]:
    """Metric on the validation part of the model's own data, or on all of ``data``; figures of speed with ``bench``."""
    metadata = read_metadata(path)
    task = read_task(path, metadata)
    opened = _open(path, metadata, host, data)
    if opened.task.inputs != task.inputs:
        raise ExportError(f"{path} takes {_inputs(task)}; {opened.source} has {_inputs(opened.task)}")
    batches = Batches(opened.validation, batch_size)
    figures = run_onnx(path, batches, provider=provider, task=task, batch_size=batch_size, bench=bench, nodes=nodes)
    return {"data": opened.source, "samples": len(opened.validation), **figures}


def _open(path: Path, metadata: dict[str, str], host: Host, data: str | None) -> Data:
    """The validation part of the model's own data, or all of ``data``, treated as the training data was."""
    if missing := {"recipe", "preprocessing"} - metadata.keys():
        raise ExportError(f"{path} does not say its {' and '.join(sorted(missing))}: write it with `toolbox export`")
    known = {name: json.loads(metadata[name]) for name in ("recipe", "preprocessing")}
    settings = Recipe.from_dict(known["recipe"], "the model's recipe").training
    own = data is None or data == settings.data
    share, held_out = (settings.validation, settings.validation_data) if own else (1, None)
    source = settings.data if data is None else data
    return open_data(
        source,
        seed=settings.seed,
        validation=share,
        validation_data=held_out,
        preprocessing=known["preprocessing"],
        host=host,
    )


def _inputs(task: Any) -> str:
    return ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in task.inputs)
