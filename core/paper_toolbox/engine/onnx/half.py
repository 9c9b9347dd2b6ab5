"""From a float32 ONNX file to one that computes in float16, its inputs and outputs still float32."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from ...errors import ExportError
from .session import one_line, quiet


def halve(source: Path, target: Path, external: bool = False) -> None:
    """Write ``target``, the float16 model of ``source``."""
    try:
        with quiet():
            from onnxruntime.transformers.float16 import convert_float_to_float16

            half = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True, disable_shape_infer=external)
            model = ir.from_proto(half)
            model.graph.sort()  # the converter appends the casts of the inputs at the end
            ir.save(model, str(target), external_data=f"{target.name}.data" if external else None)
    except OSError:
        raise
    except Exception as error:  # the converter raises bare Exception and ValueError
        raise ExportError(f"fp16: {one_line(error)}") from error
