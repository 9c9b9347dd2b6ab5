"""Models of transformers, timm and torchvision, where these are installed; code from a hub is never run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ...errors import ModelError
from ...task import Task, TensorSpec
from ..hf.files import sums
from ..hf.model import transformers_model
from .packages import flag, known, package


def timm_model(name: str, task: Task, options: Mapping[str, Any], weights: bool) -> nn.Module:
    """``timm:NAME`` for one image; random weights unless ``?pretrained=true``."""
    library = package("timm", f"timm:{name}")
    known(f"timm:{name}", options, ("pretrained",))
    channels = _image(f"timm:{name}", task).shape[0]
    if name not in library.list_models():
        raise ModelError(f"timm:{name}: timm has no such model; timm.list_models() names them")
    pretrained = weights and flag(options, "pretrained", False)
    model: nn.Module = library.create_model(name, pretrained=pretrained, num_classes=task.outputs, in_chans=channels)
    return model


def torchvision_model(name: str, task: Task, options: Mapping[str, Any], weights: bool) -> nn.Module:
    """``torchvision:NAME`` for one colour image, with random weights."""
    library = package("torchvision", f"torchvision:{name}")
    known(f"torchvision:{name}", options, ())
    if _image(f"torchvision:{name}", task).shape[0] != 3:
        raise ModelError(f"torchvision:{name} needs images of 3 channels: folder:PATH?channels=3")
    if name not in library.models.list_models(module=library.models):
        raise ModelError(
            f"torchvision:{name}: torchvision has no such classifier; torchvision.models.list_models() names them"
        )
    model: nn.Module = library.models.get_model(name, weights=None, num_classes=task.outputs)
    return model


LIBRARIES: dict[str, Callable[[str, Task, Mapping[str, Any], bool], nn.Module]] = {
    "hf": transformers_model,
    "timm": timm_model,
    "torchvision": torchvision_model,
}
#: By scheme: the options that pin a source to the files it has now, so that a later change of them is noticed.
PINS: dict[str, Callable[[str, Mapping[str, Any]], dict[str, str]]] = {"hf": sums}


def _image(source: str, task: Task) -> TensorSpec:
    first = task.inputs[0]
    if task.kind == "tokens" or len(task.inputs) != 1 or len(first.shape) != 3:
        raise ModelError(
            f"{source} needs one image (C, H, W); this {task.kind} task has {', '.join(s.name for s in task.inputs)}"
        )
    return first
