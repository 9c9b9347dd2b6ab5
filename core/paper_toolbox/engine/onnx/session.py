"""Opening ONNX files in ONNX Runtime, quietly; what is missing, damaged or refused is one clear error."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ...errors import ExportError
from ...kit.batch import Inputs, tensors
from ...task import Task

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}  # the exhaustive search starts anew at every new batch size
SILENT, WARNINGS = 4, 2  # ONNX Runtime's log levels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed, no warnings, no log lines from exporters, quantizers and providers."""
    disabled = logging.root.manager.disable
    ort.set_default_logger_severity(SILENT)
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        ort.set_default_logger_severity(WARNINGS)


def options(*, strict: bool = False, threads: int = 0, spinning: bool = True) -> ort.SessionOptions:
    """Session options; ``strict`` forbids nodes on the CPU, ``threads`` = 0 takes one per core."""
    chosen = ort.SessionOptions()
    chosen.log_severity_level = SILENT
    chosen.intra_op_num_threads = threads
    chosen.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if strict else "0")
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return chosen


def open_session(path: Path | bytes, provider: str, chosen: ort.SessionOptions) -> ort.InferenceSession:
    """A session whose first provider is ``provider``; whatever stands in the way is an ``ExportError``."""
    names: list[Any] = [PROVIDERS[provider]]
    if provider != "cpu":
        names = [*([names[0]] if provider == "tensorrt" else []), (PROVIDERS["cuda"], CUDA_OPTIONS)]
    model = path if isinstance(path, bytes) else str(path)
    try:
        with quiet():
            opened = ort.InferenceSession(model, chosen, providers=names, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors share no base class
        what = "the probe" if isinstance(path, bytes) else path
        raise ExportError(f"{what}: ONNX Runtime cannot load it: {one_line(error)}") from error
    if opened.get_providers()[0] != PROVIDERS[provider]:
        raise ExportError(f"ONNX Runtime did not load {provider}: it took {opened.get_providers()[0]}")
    return opened


def feeds(inputs: Inputs, task: Task) -> dict[str, np.ndarray[Any, Any]]:
    """A batch as ONNX Runtime takes it, by input name."""
    if isinstance(inputs, Mapping):
        return {spec.name: inputs[spec.name].detach().cpu().numpy() for spec in task.inputs}
    return {spec.name: x.detach().cpu().numpy() for spec, x in zip(task.inputs, tensors(inputs), strict=True)}


def check_file(path: Path) -> None:
    """A missing or empty file is named as such before ONNX Runtime looks at it."""
    if not path.is_file():
        raise ExportError(f"{path} is missing: `toolbox export` writes one")
    if not path.stat().st_size:
        raise ExportError(f"{path} is empty: export the model again")


def read_model(path: Path) -> onnx.ModelProto:
    """A model file, without weights that lie beside it; a damaged file is an ``ExportError``."""
    check_file(path)
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise ExportError(f"{path} is no readable ONNX model, or truncated: {one_line(error)}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a model file."""
    return {entry.key: entry.value for entry in read_model(path).metadata_props}


def one_line(error: BaseException | str) -> str:
    """The first lines of an error as one of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
