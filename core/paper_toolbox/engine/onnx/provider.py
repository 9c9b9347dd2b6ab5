"""Choosing where a model runs: the provider that was asked for or a clear error, never another one in silence."""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from ...errors import ExportError
from .nodes import placement
from .session import PROVIDERS, check_file, one_line, open_session, options, quiet


def session(path: Path, provider: str = "auto", *, threads: int = 0, spinning: bool = True) -> ort.InferenceSession:
    """Open a model. ``auto`` takes CUDA where it works; a provider that is named runs the model or is an error."""
    check_file(path)
    used = choose(provider)
    if provider == "auto" or used == "cpu":
        return open_session(path, used, options(threads=threads, spinning=spinning))
    try:
        return open_session(path, provider, options(strict=True))
    except ExportError as error:
        if "default CPU EP" not in str(error):
            raise
    return _but_for_shapes(path, provider)


def choose(provider: str) -> str:
    """``provider``, or for ``auto`` CUDA where it works and else the CPU; one that cannot be used is an error."""
    if provider == "auto":
        return "cuda" if probe("cuda") is None else "cpu"
    if (reason := probe(provider)) is not None:
        raise ExportError(f"--provider {provider} cannot be used here: {reason}")
    return provider


def _but_for_shapes(path: Path, provider: str) -> ort.InferenceSession:
    """The strict option also counts the integer arithmetic on shapes that GPU providers leave to the CPU on purpose."""
    stray = sorted({n.operator for n in placement(path, provider) if n.provider == PROVIDERS["cpu"] and n.computes})
    if stray:
        raise ExportError(f"--provider {provider}: {path} has operators that would run on the CPU: {', '.join(stray)}")
    return open_session(path, provider, options())


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
