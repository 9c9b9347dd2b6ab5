"""Models of transformers, timm and torchvision, where these are installed; code from a hub is never run."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError
from ..task import Task, TensorSpec


class Keywords(nn.Module):
    """A transformers model that takes a task's inputs, by position or by the task's names, and gives its logits."""

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        super().__init__()
        self.model = model
        self.names = dict(names)  # the task's name -> the model's keyword

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        asked = dict(zip(self.names.values(), inputs, strict=False))
        asked |= {self.names[name]: x for name, x in named.items()}
        logits: Tensor = self.model(**asked).logits
        return logits


def transformers_model(name: str, task: Task, options: Mapping[str, Any], weights: bool) -> nn.Module:
    """``hf:FOLDER`` or ``hf:ORG/NAME`` from the hub's cache (``?download=true`` asks the hub).

    Weights are read from safetensors alone; ``?pretrained=false`` keeps the configuration and starts from random.
    """
    library = _library("transformers", f"hf:{name}")
    _known(f"hf:{name}", options, ("pretrained", "download", "revision"))
    names = {spec.name: _keyword(spec) for spec in task.inputs}
    auto = getattr(library, _auto_class(name, task, set(names.values())))
    pretrained = _flag(options, "pretrained", True)
    where = {"trust_remote_code": False, "local_files_only": not _flag(options, "download", False)}
    where |= {"revision": options["revision"]} if "revision" in options else {}
    try:
        config = library.AutoConfig.from_pretrained(name, num_labels=task.outputs, **where)
        _fit_config(config, task, resize=not pretrained)
        if pretrained and weights:
            model = auto.from_pretrained(
                name, config=config, use_safetensors=True, ignore_mismatched_sizes=True, **where
            )
        else:
            model = auto.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where_from = "a folder or the hub's cache (?download=true asks the hub)"
        raise ModelError(f"hf:{name} cannot be opened from {where_from}: {said}") from error
    return Keywords(model, names)


def timm_model(name: str, task: Task, options: Mapping[str, Any], weights: bool) -> nn.Module:
    """``timm:NAME`` for one image; random weights unless ``?pretrained=true``."""
    library = _library("timm", f"timm:{name}")
    _known(f"timm:{name}", options, ("pretrained",))
    channels = _image(f"timm:{name}", task).shape[0]
    if name not in library.list_models():
        raise ModelError(f"timm:{name}: timm has no such model; timm.list_models() names them")
    pretrained = weights and _flag(options, "pretrained", False)
    model: nn.Module = library.create_model(name, pretrained=pretrained, num_classes=task.outputs, in_chans=channels)
    return model


def torchvision_model(name: str, task: Task, options: Mapping[str, Any], weights: bool) -> nn.Module:
    """``torchvision:NAME`` for one colour image, with random weights."""
    library = _library("torchvision", f"torchvision:{name}")
    _known(f"torchvision:{name}", options, ())
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


def _library(package: str, source: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{source} needs the package {package}: pip install {package}")
    return importlib.import_module(package)


def _known(source: str, options: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    if unknown := [name for name in options if name not in allowed]:
        raise ModelError(f"{source} has no option {unknown[0]!r} (it has {', '.join(allowed) or 'no options'})")


def _flag(options: Mapping[str, Any], name: str, default: bool) -> bool:
    text = str(options.get(name, default)).lower()
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise ModelError(f"{name}={text}: must be true or false")
    return text in ("true", "1", "yes")


def _keyword(spec: TensorSpec) -> str:
    """What transformers calls an input."""
    if spec.dtype.startswith("float"):
        return "pixel_values" if len(spec.shape) == 3 else spec.name
    if "type" in spec.name:
        return "token_type_ids"
    return "attention_mask" if spec.vocabulary is None else "input_ids"


def _auto_class(name: str, task: Task, keywords: set[str]) -> str:
    if "input_ids" in keywords:
        return "AutoModelForCausalLM" if task.kind == "tokens" else "AutoModelForSequenceClassification"
    if keywords == {"pixel_values"} and task.kind == "classification":
        return "AutoModelForImageClassification"
    raise ModelError(
        f"hf:{name} serves token ids, or the classes of one image, not a {task.kind} task of {', '.join(keywords)}"
    )


def _fit_config(config: Any, task: Task, resize: bool) -> None:
    """No cache, a padding id, and, for a model that starts from random, the sizes of the data."""
    config.use_cache = False
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    for spec in task.inputs if resize else ():
        if spec.vocabulary is not None and hasattr(config, "vocab_size"):
            config.vocab_size = task.outputs if task.kind == "tokens" else spec.vocabulary
        elif len(spec.shape) == 3 and hasattr(config, "image_size"):
            config.num_channels, config.image_size = spec.shape[0], list(spec.shape[1:])


def _image(source: str, task: Task) -> TensorSpec:
    first = task.inputs[0]
    if task.kind == "tokens" or len(task.inputs) != 1 or len(first.shape) != 3:
        raise ModelError(
            f"{source} needs one image (C, H, W); this {task.kind} task has {', '.join(s.name for s in task.inputs)}"
        )
    return first
