"""Inspect: what an ONNX file says of itself, and how ONNX Runtime runs it, node by node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, ExportError
from ..files import read_json
from .export import TOLD
from .onnx.layers import Layers
from .onnx.nodes import Node, count, integer_kernels, kernels_of, profile
from .onnx.provider import choose, session
from .onnx.session import read_metadata, read_model

RUNS = 5  #: of the model, whose median times are told


def inspect(path: Path, provider: str = "auto") -> dict[str, Any]:
    """Recipe, methods, figures and parity as the file tells them; its nodes and layers with provider, type and time.

    The file is parsed once, and on the CPU opened once; a GPU that is named must run all of it, which takes a look.
    """
    model = read_model(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    used = choose(provider)
    if used != "cpu" and provider != "auto":
        session(path, provider)
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    found, layers = profile(path, used, RUNS, graph=quantized and used == "cpu"), Layers(model.graph)
    return {
        "file": {
            "bytes": _size(path),
            "opset": max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=None),
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            "precision": metadata.get("precision"),
        },
        "inputs": found.inputs,
        "outputs": found.outputs,
        "told": _told(path, metadata),
        "export": _export(path),
        "provider": used,
        "nodes": [{**vars(node), "layer": layers.of(node.name, node.operator)} for node in found.nodes],
        "layers": _layers(found.nodes, layers),
        "counts": count(found.nodes),
        "integers": (kernels_of(found.graph, layers) if found.graph else integer_kernels(path)) if quantized else None,
    }


def read_told(path: Path) -> dict[str, Any]:
    """The file's own record, by key; empty for a file that was not exported here."""
    return _told(path, read_metadata(path))


def _told(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        return {key: json.loads(metadata[key]) for key in TOLD if key in metadata} if "recipe" in metadata else {}
    except ValueError as error:
        raise ExportError(f"{path}: its metadata cannot be read: {error}") from None


def _layers(nodes: Sequence[Node], layers: Layers) -> list[dict[str, Any]]:
    """The time of each layer, all its nodes together, the slowest first; nodes of no layer are one."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(layers.of(node.name, node.operator), []).append(node)
    rows = [
        {
            "layer": name,
            "operators": list(dict.fromkeys(node.operator for node in own)),
            "dtypes": list(dict.fromkeys(node.dtype for node in own)),
            "us": sum(node.us for node in own),
        }
        for name, own in found.items()
    ]
    return sorted(rows, key=lambda row: -row["us"])


def _size(path: Path) -> int:
    """Bytes, those of weights beside it too."""
    beside = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _export(path: Path) -> dict[str, Any] | None:
    """The report that was written beside the file as it was exported, if it is of this file."""
    try:
        report: dict[str, Any] = read_json(path.with_name(f"{path.name}.json"))
    except ArtifactError:
        return None
    return report if report.get("bytes") == _size(path) else None
