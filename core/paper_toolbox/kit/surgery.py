"""Find, replace, insert, parametrize and fold layers; every edit is recorded: a model is rebuilt without pickle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_parametrize

from ..errors import ArtifactError, ModelError
from .record import TRUSTED, arguments, import_name, load_class
from .splice import at, like, own_class, put, settle, untie

__all__ = [
    "TRUSTED",
    "apply_edits",
    "arguments",
    "edits",
    "find",
    "fold",
    "import_name",
    "insert",
    "parametrize",
    "replace",
    "reshape",
    "unparametrize",
]
_RECORD, _ORDER = "toolbox_edits", "toolbox_order"


def find(model: nn.Module, types: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[tuple[str, Any]]:
    """(path, layer) of every layer of ``types``, each layer once; those inside parametrizations are left out."""
    return [(p, m) for p, m in model.named_modules() if isinstance(m, types) and ".parametrizations." not in f".{p}."]


def edits(model: nn.Module) -> list[dict[str, Any]]:
    """The edits recorded on ``model`` so far, as JSON can write them."""
    return list(getattr(model, _RECORD, []))


def replace(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Put ``layer`` wherever the layer at ``path`` is used, and record it; it takes over mode, device and dtype.

    Its constructor arguments must be attributes of the same names.
    """
    record = _entry("replace", path, layer)
    put(model, path, like(model, path, layer))
    _record(model, record)


def insert(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Put ``layer`` behind the layer at ``path``: the two become an ``nn.Sequential`` there. Recorded as an edit."""
    record = _entry("insert", path, layer)
    put(model, path, nn.Sequential(at(model, path), like(model, path, layer)).train(at(model, path).training))
    _record(model, record)


def reshape(model: nn.Module, path: str) -> None:
    """Record that the layer at ``path`` was changed in place (by pruning, say) to other constructor arguments."""
    if torch_parametrize.is_parametrized(at(model, path)):
        raise ModelError(f"layer {path!r} is parametrized: fold the model before changing the shape of its layers")
    _record(model, _entry("replace", path, at(model, path)))


def parametrize(model: nn.Module, path: str, tensor: str, layer: nn.Module) -> None:
    """Register ``layer`` as the parametrization of ``tensor`` of the layer at ``path``, and record it."""
    record = _entry("parametrize", path, layer) | {"tensor": tensor}
    host = own_class(at(model, path))
    value = getattr(host, tensor, None)
    if not isinstance(value, Tensor):
        raise ModelError(f"layer {path!r} ({type(host).__name__}) has no tensor {tensor!r} to parametrize")
    layer.to(value.device, value.dtype if value.is_floating_point() else None)
    setattr(layer, _ORDER, list(host._parameters))
    torch_parametrize.register_parametrization(host, tensor, layer).train(host.training)
    setattr(layer, _RECORD, record)  # paths change when layers are inserted: the layer itself knows its edit
    _record(model, record)


def unparametrize(model: nn.Module, path: str, tensor: str) -> None:
    """Bake the parametrizations of one tensor into a plain weight, and forget their edits."""
    host = own_class(at(model, path))
    originals: Any = host.parametrizations[tensor]  # type: ignore[index]  # a ModuleDict
    trained, tied = list(originals.parameters()), untie(model, originals)
    undone, order = [getattr(p, _RECORD, None) for p in originals.children()], getattr(originals[0], _ORDER, [])
    with torch.enable_grad():
        torch_parametrize.remove_parametrizations(host, tensor, leave_parametrized=True)
    settle(host, tensor, order, bool(trained))
    setattr(model, _RECORD, [e for e in edits(model) if not any(e is u for u in undone)])
    if tied:  # baked, it is no longer the tensor that the other layer holds
        _record(model, _entry("replace", path, host))


def fold(model: nn.Module) -> nn.Module:
    """Bake what costs time only in training into plain layers, in place; the model is left in evaluation mode.

    Parametrizations become plain weights; a layer with a ``folded()`` method is replaced by what that returns.
    """
    model.eval()
    for path, layer in find(model, nn.Module):
        if torch_parametrize.is_parametrized(layer):
            for tensor in list(layer.parametrizations):
                unparametrize(model, path, tensor)
    for path, layer in find(model, nn.Module):
        if path and callable(getattr(layer, "folded", None)) and layer in set(model.modules()):
            replace(model, path, layer.folded())
    return model


def apply_edits(model: nn.Module, record: Sequence[dict[str, Any]], trusted: Collection[str] = ()) -> nn.Module:
    """Repeat recorded edits on a fresh model.

    Only module classes of torch, of the toolbox and of the packages named in ``trusted`` are ever imported.
    """
    for edit in record:
        try:
            _repeat(model, edit, trusted)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, ImportError, ModelError) as error:
            where = edit.get("path") if isinstance(edit, dict) else edit
            raise ArtifactError(f"structure.json: the edit at {where!r} cannot be repeated: {error}") from error
    return model


def _repeat(model: nn.Module, edit: dict[str, Any], trusted: Collection[str]) -> None:
    layer = load_class(edit["class"], trusted)(**edit["arguments"])
    if edit["edit"] == "parametrize":
        parametrize(model, edit["path"], edit["tensor"], layer)
    elif edit["edit"] in ("replace", "insert"):
        {"replace": replace, "insert": insert}[edit["edit"]](model, edit["path"], layer)
    else:
        raise ValueError(f"there is no edit {edit['edit']!r}")


def _entry(edit: str, path: str, layer: nn.Module) -> dict[str, Any]:
    return {"edit": edit, "path": path, "class": import_name(layer), "arguments": arguments(layer)}


def _record(model: nn.Module, edit: dict[str, Any]) -> None:
    setattr(model, _RECORD, [*edits(model), edit])
