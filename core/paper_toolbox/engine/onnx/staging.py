"""A model file in the making: weights beside it, metadata, the checker of onnx, and taking its final place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx

from ...errors import ExportError
from .session import one_line


def finish(staged: Path, metadata: Mapping[str, str]) -> None:
    """Metadata in; shapes of intermediate values, which ONNX Runtime infers again, out; then the checker of onnx."""
    model = onnx.load(str(staged), load_external_data=False)
    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name = "paper-toolbox"
    model.doc_string = ""
    del model.graph.value_info[:]
    staged.write_bytes(model.SerializeToString())
    try:
        onnx.checker.check_model(str(staged))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{staged.name} is no valid ONNX model: {one_line(error)}") from error


def files(staged: Path) -> list[Path]:
    """The model and, where its weights lie beside it, those: first the weights."""
    return [f for f in (staged.with_name(f"{staged.name}.data"), staged) if f.exists()]


def move(staged: Path, out: Path) -> None:
    """Put the finished file, and the weights beside it, in place of what is there."""
    written = files(staged)
    for file in written:
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(file, out.with_name(file.name))
    if len(written) == 1:
        out.with_name(f"{out.name}.data").unlink(missing_ok=True)
