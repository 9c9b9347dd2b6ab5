"""Which node of an ONNX model runs where, and in which arithmetic."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ...errors import ExportError
from .layers import Layers
from .session import one_line, open_session, options, read_model

INTEGER = re.compile(r"QLinear|QGemm$|QAttention$|MatMulInteger|ConvInteger$|DynamicQuantize(MatMul|LSTM)$")
FLOAT = re.compile(r"(Fused|NhwcFused)?Conv(Transpose)?$|(Fused)?Gemm$|(Fused|Transpose)?MatMul$")
NUMPY = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool"}


@dataclass(frozen=True)
class Node:
    """One executed node; ``dtype`` is that of its first output, ``us`` the microseconds it took."""

    name: str
    operator: str
    provider: str
    dtype: str
    us: float = 0.0

    @property
    def computes(self) -> bool:
        """Whether it is more than integer arithmetic on shapes."""
        return self.dtype.startswith(("float", "double", "bfloat", "int8", "uint8"))


@dataclass(frozen=True)
class Profile:
    """One session's life: what it takes and gives, what it executed, and the graph that ONNX Runtime made of the file.

    ``graph`` is empty where it was not asked for.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    nodes: list[Node]
    graph: list[onnx.NodeProto]


def placement(path: Path, provider: str, runs: int = 1) -> list[Node]:
    """Every node in order, read from ONNX Runtime's profile; its time is the median of ``runs``."""
    return profile(path, provider, runs).nodes


def profile(path: Path, provider: str, runs: int = 1, *, graph: bool = False) -> Profile:
    """Open the file once and run it ``runs`` times on inputs of ones."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = _keeping_graph(Path(folder)) if graph else options()
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder) / "profile")
        opened = open_session(path, provider, chosen)
        events = _events(path, opened, runs)
        nodes = list(_graph(Path(folder))) if graph else []
    kernels: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels.setdefault(event["name"], []).append(event)
    inputs, outputs = (
        {value.name: f"{value.type} {value.shape}" for value in values}
        for values in (opened.get_inputs(), opened.get_outputs())
    )
    return Profile(inputs, outputs, [_node(same) for same in kernels.values()], nodes)


def _events(path: Path, opened: ort.InferenceSession, runs: int) -> list[dict[str, Any]]:
    given = blank(opened)
    try:
        for _ in range(runs):
            opened.run(None, given)
    except Exception as error:  # ONNX Runtime's errors share no base class
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
        raise ExportError(f"{path} does not run on ones of {shapes}: {one_line(error)}") from error
    events: list[dict[str, Any]] = json.loads(Path(opened.end_profiling()).read_text("utf-8"))
    return events


def _node(events: list[dict[str, Any]]) -> Node:
    name, found = events[0]["name"].removesuffix("_kernel_time"), events[0]["args"]
    outputs = found.get("output_type_shape") or [{}]
    us = statistics.median(event["dur"] for event in events)
    return Node(name, found["op_name"], found["provider"], next(iter(outputs[0]), ""), us)


def blank(opened: ort.InferenceSession) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of ones, batch size 1, that fit the session."""
    feeds = {}
    for value in opened.get_inputs():
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        shape = [n if isinstance(n, int) else 1 for n in value.shape]
        feeds[value.name] = np.ones(shape, NUMPY.get(kind, kind))
    return feeds


def count(nodes: list[Node]) -> dict[str, dict[str, int]]:
    """How many nodes by provider, by operator and by data type."""
    columns = {"providers": "provider", "operators": "operator", "dtypes": "dtype"}
    return {name: dict(Counter(getattr(n, field) for n in nodes).most_common()) for name, field in columns.items()}


def integer_kernels(path: Path) -> dict[str, Any]:
    """What ONNX Runtime makes of a quantized model on the CPU.

    ``integer`` and ``float`` count kernels by operator; ``quantize`` and ``dequantize`` are the conversions left;
    ``unfused`` are the float convolutions and matrix products that a conversion feeds: pairs that did not fuse, though
    there are integer kernels for them; ``between`` are other operators that run in float between conversions.
    """
    with tempfile.TemporaryDirectory() as folder:
        open_session(path, "cpu", _keeping_graph(Path(folder)))
        return kernels_of(_graph(Path(folder)), Layers(read_model(path).graph))


def kernels_of(nodes: Sequence[onnx.NodeProto], layers: Layers) -> dict[str, Any]:
    """The same of a graph that ONNX Runtime has optimized; ``layers`` are those of the file."""
    operators = Counter(node.op_type for node in nodes)
    dequantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    fed = [node for node in nodes if dequantized.intersection(node.input) and node.op_type != "QuantizeLinear"]
    rows = [{"node": n.name, "operator": n.op_type, "layer": layers.of(n.name, n.op_type)} for n in fed]
    return {
        "integer": {name: n for name, n in operators.items() if INTEGER.match(name)},
        "float": {name: n for name, n in operators.items() if FLOAT.match(name)},
        "quantize": operators["QuantizeLinear"],
        "dequantize": operators["DequantizeLinear"],
        "unfused": [row for row in rows if FLOAT.match(row["operator"])],
        "between": [row for row in rows if not FLOAT.match(row["operator"])],
    }


def _keeping_graph(folder: Path) -> ort.SessionOptions:
    """Options of a session that leaves its optimized graph in ``folder``; weights of over 2 GB lie beside it."""
    chosen = options()
    chosen.optimized_model_filepath = str(folder / "optimized.onnx")
    chosen.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
    return chosen


def _graph(folder: Path) -> Sequence[onnx.NodeProto]:
    nodes: Sequence[onnx.NodeProto] = onnx.load(folder / "optimized.onnx", load_external_data=False).graph.node
    return nodes
