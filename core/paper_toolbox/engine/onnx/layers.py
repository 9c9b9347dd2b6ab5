"""Which layer of the model a node belongs to that ONNX Runtime executes, fused and renamed as it is."""

from __future__ import annotations

import re
from collections import deque

import onnx

RENAMED = re.compile(r"(_nchwc|_nhwc|_token_\d+|_fused)+$")
CONVERSION = re.compile(r"_(Q|Deq)uantizeLinear$", re.IGNORECASE)
WEIGHT = re.compile(r"^(.+)\.(weight|bias|original\d*)(_|$)")
FAR = 12  #: nodes to look at behind a fused one


class Layers:
    """The layers of one file, by its nodes and by the values they compute."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self.makers = {output: node for node in graph.node for output in node.output}

    def of(self, name: str, operator: str) -> str:
        """The layer of an executed node; empty where nothing tells.

        ONNX Runtime names a fused node by its last node or its last value; the one that gave the operator counts.
        """
        plain = RENAMED.sub("", name)
        if operator in ("QuantizeLinear", "DequantizeLinear"):
            return self._converted(CONVERSION.sub("", plain))
        node = self.nodes.get(plain) or self.makers.get(plain)
        if node is None:
            return layer_of(plain)
        return _owner(self._source(node, operator) or node)

    def _converted(self, value: str) -> str:
        """The layer of a value that a conversion takes: a weight, or what a node has computed."""
        if weight := WEIGHT.match(value):
            return weight[1]
        return _owner(self.makers[value]) if value in self.makers else ""

    def _source(self, node: onnx.NodeProto, operator: str) -> onnx.NodeProto | None:
        """The nearest node, going back, that ``operator`` is a form of: Conv for FusedConv and QLinearConv."""
        waiting, seen = deque([node]), 0
        while waiting and seen < FAR:
            found, seen = waiting.popleft(), seen + 1
            if operator.endswith(found.op_type):
                return found
            waiting.extend(self.makers[value] for value in found.input if value in self.makers)
        return None


def layer_of(node: str) -> str:
    """What a node's name tells: ``body.1/conv2d`` -> ``body.1``."""
    return node.rpartition("/")[0].strip("/")


def _owner(node: onnx.NodeProto) -> str:
    """By the weight it takes, else by its name: a normalization folded into a convolution is a part of that."""
    found = (WEIGHT.match(value) for value in node.input[1:])
    return next((match[1] for match in found if match), layer_of(node.name))
