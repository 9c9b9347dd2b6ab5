"""From a PyTorch model to an ONNX program with a dynamic batch; what does not translate is named by its layer."""

from __future__ import annotations

import ast
import re
import traceback

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass
from torch import Tensor, fx, nn

from ...errors import ExportError
from ...kit.batch import Inputs, forward, tensors
from ...task import Task
from .session import one_line, quiet

OUTPUT = "outputs"
NOWHERE = ("_empty_nn_module_stack_from_metadata_hook",)  # torch's word for what it made outside of any layer


class Flat(nn.Module):
    """A model that takes its inputs one by one, in the task's order, and gives one tensor."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.layout = task.layout
        self.names = [spec.name for spec in task.inputs]

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.layout == "dict":
            return forward(self.model, dict(zip(self.names, inputs, strict=True)))
        return forward(self.model, inputs[0] if self.layout == "tensor" else inputs)


def trace(model: nn.Module, task: Task, inputs: Inputs, opset: int | None) -> torch.onnx.ONNXProgram:
    """The ONNX program of ``model``; ``inputs`` hold at least two samples, for one would be taken as fixed."""
    flat = Flat(model, task)
    batch = torch.export.Dim("batch")
    shapes = {"inputs": tuple({0: batch} for _ in flat.names)}
    arguments = _arguments(inputs, task)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(flat, arguments, dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=flat.names,
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # torch raises whatever the model's own code raises; it is named and chained
        raise ExportError(_explain(error, flat)) from error
    if exported is None:
        raise ExportError("torch.onnx gave no program")
    _check(exported.model, opset)
    tidy(exported.model)
    return exported


def _arguments(inputs: Inputs, task: Task) -> tuple[Tensor, ...]:
    if isinstance(inputs, dict):
        return tuple(inputs[spec.name] for spec in task.inputs)
    return tuple(tensors(inputs))


def _check(model: ir.Model, opset: int | None) -> None:
    for value in model.graph.inputs:
        if value.shape is not None and isinstance(value.shape[0], int):
            raise ExportError(
                f"the model takes batches of {value.shape[0]} alone: input {value.name!r} lost its batch axis"
            )
    found = model.opset_imports.get("")
    if opset is not None and found != opset:
        raise ExportError(f"opset {opset} cannot be written: the exporter gave {found}")


def _explain(error: BaseException, flat: nn.Module) -> str:
    """``layer body.1 (Twist): the operator toy.twist.default …``, dug out of the frames of a chain of errors."""
    paths = {id(layer): path for path, layer in flat.named_modules()}
    links = [error]
    while cause := links[-1].__cause__ or links[-1].__context__:
        links.append(cause)
    path, operator = "", ""
    for link in links:
        for frame, _ in traceback.walk_tb(link.__traceback__):
            owner, node = frame.f_locals.get("self"), frame.f_locals.get("node")
            path = paths.get(id(owner), path) if isinstance(owner, nn.Module) else path
            if isinstance(node, fx.Node) and node.op == "call_function":
                path, operator = _owner(node) or path, str(node.target)
    name = type(flat.get_submodule(path or "model")).__name__
    where = f"layer {_inner(path)} ({name})" if _inner(path) else f"the model ({name})"
    return f"{where} cannot be exported: " + (
        f"the operator {operator} has no ONNX form" if operator else _reason(links[-1])
    )


def _reason(error: BaseException) -> str:
    text = one_line(error)
    if fixed := re.search(r"specialized it to be a constant \((\d+)\)", text):
        return f"its code fixes the batch size at {fixed[1]}"
    if "data-dependent" in text:
        return "its forward branches on the values of a tensor; " + re.split(r" \(unhinted| Caused by", text)[0]
    return text


def _owner(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(stack.values())), "")


def _inner(path: str) -> str:
    """A path inside ``Flat`` as one inside the model."""
    return f"{path}.".removeprefix("model.").rstrip(".")


def tidy(model: ir.Model) -> None:
    """Nodes named by their layers; constant shapes; no stack traces with the paths of this machine."""
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        layer = _inner(scopes[-2]) if len(scopes) > 1 and scopes[-2] not in NOWHERE else ""
        node.name = f"{layer}/{(node.name or node.op_type).removeprefix('node_')}"
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for weight in list(model.graph.initializers.values()):
        weight.metadata_props.clear()
        weight.name = (weight.name or "").removeprefix("model.")
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    ShapeInferencePass(data_prop=True)(model)
    for node in model.graph:
        if node.op_type == "Reshape":
            _fix_shape(model.graph, node)
    RemoveUnusedNodesPass()(model)


def _fix_shape(graph: ir.Graph, reshape: ir.Node) -> None:
    """A shape computed as (batch, 16, 3) becomes the constant (-1, 16, 3): GPUs leave such arithmetic to the CPU."""
    asked, shape = reshape.inputs[1], reshape.outputs[0].shape
    if asked is None or asked.const_value is not None or shape is None:
        return
    sizes = [n if isinstance(n, int) else -1 for n in shape]
    if sizes.count(-1) != 1 or 0 in sizes:
        return
    value = ir.Value(name=f"{reshape.name}_shape", const_value=ir.tensor(np.array(sizes, np.int64)))
    graph.register_initializer(value)
    reshape.replace_input_with(1, value)
