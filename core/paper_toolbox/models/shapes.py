"""What a task's inputs are: one image, numbers, or token ids with a mask."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ModelError
from ..task import Task, TensorSpec


class Ordered(nn.Module):
    """Gives a model its inputs in order, whatever a task calls them: keyword ``names[i]`` is argument ``i``."""

    def __init__(self, names: list[str], body: nn.Module) -> None:
        super().__init__()
        self.names = names
        self.body = body

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        outputs: Tensor = self.body(*inputs, *(named[name] for name in self.names if name in named))
        return outputs


def ordered(task: Task, specs: list[TensorSpec], body: nn.Module) -> nn.Module:
    """``body``, which takes tensors in the order of ``specs``, as a model of the task's own layout."""
    return Ordered([spec.name for spec in specs], body) if task.layout == "dict" else body


def image(task: Task, model: str) -> TensorSpec:
    """The one (C, H, W) input of the task."""
    first = task.inputs[0]
    if len(task.inputs) > 1 or len(first.shape) != 3 or first.vocabulary is not None or task.kind == "tokens":
        raise ModelError(f"{model} needs one image (C, H, W); {_described(task)}: use {default_model(task)}")
    return first


def numbers(task: Task, model: str) -> list[TensorSpec]:
    """The float inputs of the task, of any shapes."""
    if any(spec.dtype.startswith("int") for spec in task.inputs) or task.kind == "tokens":
        raise ModelError(f"{model} needs numbers; {_described(task)}: use {default_model(task)}")
    return list(task.inputs)


def tokens(task: Task, model: str) -> list[TensorSpec]:
    """The (T,) ids of the task, and its mask if it has one."""
    ids = [spec for spec in task.inputs if spec.vocabulary is not None]
    masks = [spec for spec in task.inputs if spec not in ids]
    fits = len(ids) == 1 and len(ids[0].shape) == 1 and len(masks) <= 1
    fits = fits and all((m.shape, m.dtype) == (ids[0].shape, ids[0].dtype) for m in masks)
    if not fits:
        wanted = f"{model} needs one input of token ids (T,), with at most a mask"
        raise ModelError(f"{wanted}; {_described(task)}: use {default_model(task)}")
    return ids + masks


def default_model(task: Task) -> str:
    """The built-in model that suits a task: ``gpt`` for ids, ``cnn`` for one image, ``mlp`` for other numbers."""
    if any(spec.vocabulary is not None for spec in task.inputs):
        return "gpt"
    return "cnn" if len(task.inputs) == 1 and len(task.inputs[0].shape) == 3 else "mlp"


def _described(task: Task) -> str:
    inputs = ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in task.inputs)
    return f"this {task.kind} task has {inputs}"
