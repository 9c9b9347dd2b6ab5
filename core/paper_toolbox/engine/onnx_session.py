"""ONNX Runtime sessions: the provider that was asked for or a clear error, never another one in silence."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ..errors import ExportError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}  # the exhaustive search starts anew at every new batch size
SILENT, WARNINGS = 4, 2  # ONNX Runtime's log levels
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on stdout, no warnings, no log lines from exporters, quantizers and providers."""
    disabled = logging.root.manager.disable
    ort.set_default_logger_severity(SILENT)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        ort.set_default_logger_severity(WARNINGS)


def session(path: Path, provider: str = "auto", *, threads: int = 0, spinning: bool = True) -> ort.InferenceSession:
    """Open a model. ``auto`` takes CUDA where it works; a provider that is named runs the model or is an error."""
    check_file(path)
    if provider == "auto":
        usable = "cuda" if probe("cuda") is None else "cpu"
        return open_session(path, usable, options(threads=threads, spinning=spinning))
    if (reason := probe(provider)) is not None:
        raise ExportError(f"--provider {provider} cannot be used here: {reason}")
    if provider == "cpu":
        return open_session(path, "cpu", options(threads=threads, spinning=spinning))
    try:
        return open_session(path, provider, options(strict=True))
    except ExportError as error:
        if "default CPU EP" not in str(error):
            raise
    return _but_for_shapes(path, provider)


def _but_for_shapes(path: Path, provider: str) -> ort.InferenceSession:
    """The strict option also counts the integer arithmetic on shapes that GPU providers leave to the CPU on purpose."""
    from .onnx_nodes import placement

    stray = sorted({n.operator for n in placement(path, provider) if n.provider == PROVIDERS["cpu"] and n.computes})
    if stray:
        raise ExportError(f"--provider {provider}: {path} has operators that would run on the CPU: {', '.join(stray)}")
    return open_session(path, provider, options())


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


@functools.cache
def probe(provider: str) -> str | None:
    """Why ``provider`` cannot be used, found by running a one-node model on it; None when it works."""
    name = PROVIDERS.get(provider)
    if name is None:
        return f"there is no provider {provider!r}; providers are auto, {', '.join(PROVIDERS)}"
    if name not in ort.get_available_providers():
        return f"this build of ONNX Runtime lacks it (pip install onnxruntime-gpu; it has {ort.get_device()})"
    with quiet():
        if provider != "cpu" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    try:
        opened = open_session(_one_node(), provider, options(strict=provider != "cpu"))
        found = opened.run(None, {"x": np.array([-1.0, 2.0], np.float32)})[0]
    except Exception as error:  # ONNX Runtime's errors share no base class
        return _missing_library(name) or one_line(error.__cause__ or error)
    return None if found.tolist() == [0.0, 2.0] else f"it computed {found.tolist()} where [0.0, 2.0] is right"


def _one_node() -> bytes:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _missing_library(name: str) -> str | None:
    """What the dynamic loader says; ONNX Runtime writes it to its log alone. Called after ONNX Runtime has tried."""
    stem = name.removesuffix("ExecutionProvider").lower()
    folder = Path(ort.__file__).parent / "capi"
    if not sys.platform.startswith("linux") or not (folder / f"libonnxruntime_providers_{stem}.so").exists():
        return None
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{stem}.so"))
    except OSError as error:
        return one_line(error)
    return None


def check_file(path: Path) -> None:
    """A missing or empty file is named as such before ONNX Runtime looks at it."""
    if not path.is_file():
        raise ExportError(f"{path} is missing: `toolbox export` writes one")
    if not path.stat().st_size:
        raise ExportError(f"{path} is empty: export the model again")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a model file; a damaged file is an ``ExportError``."""
    check_file(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise ExportError(f"{path} is no readable ONNX model, or truncated: {one_line(error)}") from error
    return {entry.key: entry.value for entry in model.metadata_props}


def one_line(error: BaseException | str) -> str:
    """The first lines of an error as one of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
