"""From a float32 ONNX file to an int8 one: calibrated ranges, QuantizeLinear and DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ...errors import ExportError
from ...kit.batch import Inputs
from ...kit.quant import QuantPlan, skipped, split
from ...task import Task
from .session import feeds, one_line, quiet

CHUNK = 16  # calibration inputs that go through the model at once
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration inputs in chunks. ONNX Runtime asks for ranges of chunks and forgets their activations after each."""

    def __init__(self, chunks: list[Inputs], task: Task) -> None:
        self.chunks = chunks
        self.task = task
        self.set_range(0, len(chunks))

    def __len__(self) -> int:
        return len(self.chunks)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.waiting = iter(self.chunks[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        chunk = next(self.waiting, None)
        return None if chunk is None else feeds(chunk, self.task)


def quantize(source: Path, target: Path, plan: QuantPlan, inputs: Inputs, task: Task, external: bool = False) -> None:
    """Write ``target``, the int8 model of ``source``; ``inputs`` calibrate the ranges of the activations.

    Unsigned activations with signed weights are what x86 multiplies fastest. The ranges are merged chunk by chunk
    (``CalibStridedMinMax``, which holds for histograms too), so that memory does not grow with the samples.
    """
    prepared = target.with_name(f"prepared-{source.name}")
    extra: dict[str, Any] = {"CalibStridedMinMax": 1}
    if plan.calibration == "percentile":
        extra["CalibPercentile"] = plan.percentile
    try:
        with quiet():
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True, save_as_external_data=external)
            quantize_static(
                str(prepared),
                str(target),
                Reader(split(inputs, CHUNK), task),
                per_channel=plan.per_channel,
                activation_type=TYPES[plan.activations],
                weight_type=TYPES[plan.weights],
                calibrate_method=METHODS[plan.calibration],
                nodes_to_exclude=_excluded(prepared, plan),
                use_external_data_format=external,
                extra_options=extra,
            )
    except OSError:
        raise
    except Exception as error:  # the quantizer raises bare Exception, ValueError and ONNX Runtime's own
        raise ExportError(f"int8: {one_line(error)}") from error


def _excluded(prepared: Path, plan: QuantPlan) -> list[str]:
    """Nodes of the layers to skip; a node is named by its layer's path, a slash, and the operation."""
    nodes = onnx.load(str(prepared), load_external_data=False).graph.node
    return [node.name for node in nodes if skipped(node.name.partition("/")[0], plan.skip)]
