"""Figures of a model before and after compression, and the gates they have to pass."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ...kit import quant
from ..data.open_data import Batches, Data
from ..onnx.graph import export_onnx
from ..onnx.provider import session
from ..onnx.run import latency, run_onnx
from ..onnx.runner import Runner
from ..onnx.session import feeds
from ..reports.interval import interval_of
from .sizes import sizes


@dataclass(frozen=True)
class Gates:
    """What the result must reach: accuracy lost at most (a share; rmse: relative), speed-up, ONNX bytes at most."""

    max_drop: float | None = None
    min_speedup: float | None = None
    max_size: int | None = None

    def missed(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """One line for each gate that ``after`` does not reach."""
        found = []
        if self.max_drop is not None and (lost := drop(before, after)) > self.max_drop:
            found.append(f"drop {lost:.4f} is more than --max-drop {self.max_drop:g}")
        if self.min_speedup is not None and (gain := before["latency_ms"] / after["latency_ms"]) < self.min_speedup:
            found.append(f"speed-up {gain:.2f} is less than --min-speedup {self.min_speedup:g}")
        if self.max_size is not None and after["onnx_bytes"] > self.max_size:
            found.append(f"{after['onnx_bytes']} bytes are more than --max-size {self.max_size}")
        return found


def drop(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Accuracy lost, or the relative growth of the rmse."""
    if "rmse" in before:
        return float(after["rmse"] / before["rmse"] - 1)
    return float(before["accuracy"] - after["accuracy"])


def measure(
    original: nn.Module, model: nn.Module, data: Data, batch_size: int, metadata: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures before and after: metric, parameters, MACs, ONNX bytes, and latency of one batch, interleaved.

    ``metadata`` goes into the files as export writes it, so that their sizes are those of the exported ones.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.onnx" for name in ("before", "after")]
        for path, each in zip(paths, (original, model), strict=True):
            rows.append(_row(each, path, data, metadata))
        inputs, _ = next(iter(Batches(data.validation, batch_size)))
        for row, figures in zip(rows, latency(paths, feeds(inputs, data.task)), strict=True):
            row["latency_ms"] = figures["p50_ms"]
    return rows[0], rows[1]


def _row(model: nn.Module, path: Path, data: Data, metadata: dict[str, str]) -> dict[str, Any]:
    """Export and run; an int8 file may change any share of the answers here, its accuracy is what counts."""
    int8 = quant.planned(model) is not None
    precision: Literal["int8", "fp32"] = "int8" if int8 else "fp32"
    batches = Batches(data.validation, 256)
    report = export_onnx(
        model, data.task, batches, path, precision=precision, metadata=metadata, tolerance=1.0 if int8 else None
    )
    metric = data.task.metric
    figures = run_onnx(path, batches, provider="cpu", task=data.task)
    found = {metric: figures[metric], "precision": precision, **sizes(model, data), "onnx_bytes": report["bytes"]}
    if int8:  # who exports it later has the float model at hand, and its errors are others
        found["interval"] = interval_of(Runner(session(path, "cpu"), data.task), figures[metric], data)
    return found
