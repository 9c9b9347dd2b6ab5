"""Writing a model as ONNX: traced, converted, checked, run beside PyTorch; a file that misses is not left behind."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from ...errors import ArtifactError, DataError, GateMissed, ParamError
from ...kit.batch import Inputs, apply, size
from ...kit.quant import QuantPlan, join, planned, take_samples
from ...kit.surgery import fold
from ...task import Task
from .nodes import integer_kernels
from .parity import compare, resize
from .provider import session
from .runner import Runner
from .session import quiet
from .staging import files, finish, move

__all__ = ["Precision", "export_onnx", "integer_kernels"]

Precision = Literal["fp32", "fp16", "int8"]
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.05}
PROMISED = 0.01
INLINE = 1_900_000_000  # bytes of weights; a protobuf file ends at 2 GB
Batches = Iterable[tuple[Inputs, Tensor]]


def export_onnx(
    model: nn.Module,
    task: Task,
    batches: Batches,
    out: Path,
    *,
    precision: Precision = "fp32",
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float | None = None,
    calibration: Batches | None = None,
    external: bool | None = None,
    promised: float | None = None,
) -> dict[str, Any]:
    """Write ``model`` to ``out`` and report; the model stays as it is.

    ``batches`` are re-iterable and real: outputs are compared on all of them, and at three batch sizes. ``tolerance``
    bounds the largest difference over the largest output (at least 1); for int8 the share of changed answers.
    ``promised`` is the metric that an int8 file was already measured to reach: then that is held against it instead.
    ``calibration`` serves int8 where none is planned on the model. ``external`` puts the weights beside the file.
    """
    if precision not in TOLERANCE:
        raise ParamError(f"precision {precision!r}: must be one of {', '.join(TOLERANCE)}")
    first = next((inputs for inputs, _ in batches), None)
    if first is None or not size(first):
        raise DataError("export compares outputs on real inputs, and its batches are empty")
    recorded = planned(model) or _default_plan(calibration or batches) if precision == "int8" else None
    plain = fold(copy.deepcopy(model).cpu().float())
    weights = sum(t.numel() * t.element_size() for t in plain.state_dict().values())
    external = weights > INLINE if external is None else external
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            staged = Path(folder) / out.name
            _write(plain, task, first, staged, opset, external)
            _convert(staged, precision, recorded, task, external)
            finish(staged, {"task": json.dumps(dataclasses.asdict(task)), "precision": precision, **(metadata or {})})
            report = _verify(plain, task, batches, staged, precision, tolerance, promised)
            report |= {"file": str(out), "bytes": sum(f.stat().st_size for f in files(staged)), "external": external}
            move(staged, out)
    except OSError as error:
        raise ArtifactError(f"cannot write {out}: {error.strerror or error}") from error
    return report


def _default_plan(batches: Batches) -> tuple[QuantPlan, Inputs]:
    plan = QuantPlan()
    return plan, join(take_samples(batches, plan.samples))


def _write(model: nn.Module, task: Task, inputs: Inputs, staged: Path, opset: int | None, external: bool) -> None:
    from .trace import trace

    example = apply(lambda x: x.cpu(), resize(inputs, 3))
    program = trace(model, task, example, opset)
    with quiet():
        program.save(str(staged), external_data=external)


def _convert(staged: Path, precision: str, plan: tuple[QuantPlan, Inputs] | None, task: Task, external: bool) -> None:
    """Turn the float32 file into the precision asked for, under the same name."""
    if precision == "fp32":
        return
    source = staged.parent / "float" / staged.name
    source.parent.mkdir()
    for file in files(staged):
        file.rename(source.parent / file.name)
    if plan is not None:
        from .int8 import quantize

        quantize(source, staged, *plan, task, external)
    else:
        from .half import halve

        halve(source, staged, external)
    shutil.rmtree(source.parent)


def _verify(
    model: nn.Module,
    task: Task,
    batches: Batches,
    staged: Path,
    precision: str,
    tolerance: float | None,
    promised: float | None,
) -> dict[str, Any]:
    """Open, run, compare; beyond the tolerance is ``GateMissed``."""
    parity = compare(model, Runner(session(staged, "cpu"), task), task, batches)
    allowed = TOLERANCE[precision] if tolerance is None else tolerance
    gap, what = parity["gap"], "the largest difference to PyTorch, over the largest output,"
    if precision == "int8":
        gap, what = parity["gap_int8"], "the share of answers that differ from PyTorch's"
        allowed = max(allowed, 1 / parity["answers"])  # of a handful of answers one may change
    if promised is not None:
        found = parity[f"{task.metric}_onnx"]
        gap = abs(found - promised) / (1.0 if task.higher_is_better else promised)
        what, allowed = f"{task.metric} is {found:.4g}, not the {promised:.4g} of its run: the difference", PROMISED
    report = {"precision": precision, "tolerance": allowed, "parity": parity}
    if not gap <= allowed:  # NaN too
        raise GateMissed(f"{precision} export: {what} is {gap:.3g}, allowed {allowed:g}; no file was written", report)
    return report | ({"kernels": integer_kernels(staged)} if precision == "int8" else {})
