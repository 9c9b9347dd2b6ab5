"""Run: an ONNX file on data, in ONNX Runtime; what it needs to know stands in the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..artifact import task_from_json
from ..errors import ExportError
from ..host import Host
from ..recipe import Recipe
from .data import Batches, Data, open_data
from .evaluate import target_scale
from .onnx_run import read_metadata, run_onnx


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
    known = _known(path)
    opened = _open(known, host, data)
    task = task_from_json(known["task"])
    if opened.task.inputs != task.inputs:
        raise ExportError(f"{path} takes {_inputs(task)}; {opened.source} has {_inputs(opened.task)}")
    scale = target_scale(known["preprocessing"])
    batches = Batches(opened.validation, batch_size)
    figures = run_onnx(
        path, batches, provider=provider, task=task, scale=scale, batch_size=batch_size, bench=bench, nodes=nodes
    )
    return {"model": str(path), "data": opened.source, "samples": len(opened.validation), **figures}


def _known(path: Path) -> dict[str, Any]:
    prefix = "paper_toolbox."
    known = {k.removeprefix(prefix): json.loads(v) for k, v in read_metadata(path).items() if k.startswith(prefix)}
    if missing := {"task", "recipe", "preprocessing"} - known.keys():
        raise ExportError(f"{path} does not say its {', '.join(sorted(missing))}: write it with `toolbox export`")
    return known


def _open(known: dict[str, Any], host: Host, data: str | None) -> Data:
    settings = Recipe.from_dict(known["recipe"], "the model's recipe").training
    own = data is None or data == settings.data
    share = settings.validation if own else 1
    source = settings.data if data is None else data
    return open_data(source, seed=settings.seed, validation=share, preprocessing=known["preprocessing"], host=host)


def _inputs(task: Any) -> str:
    return ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in task.inputs)
