"""A layer as JSON: the name of its class and its constructor arguments, and the class back from its name."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import ArtifactError, ModelError

TRUSTED = ("torch.nn", "paper_toolbox")
_SURPLUS = ("self", "device", "dtype")


def arguments(layer: nn.Module) -> dict[str, Any]:
    """Constructor arguments read back from the attributes of the same names.

    A switch such as ``bias=True`` may be kept as the tensor itself, or None. What has a leading underscore is left out.
    """
    name = parametrize.type_before_parametrizations(layer).__name__
    found: dict[str, Any] = {}
    for argument, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            if layer.state_dict() or any(True for _ in layer.children()):
                raise ModelError(f"{name} takes *{argument}: it cannot be rebuilt from a record")
        elif argument not in _SURPLUS and not argument.startswith("_"):
            found[argument] = _kept(layer, name, argument, isinstance(parameter.default, bool))
    try:
        plain: dict[str, Any] = json.loads(json.dumps(found))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name} cannot be rebuilt from a record: {error}") from error
    return plain


def _kept(layer: nn.Module, name: str, argument: str, switch: bool) -> Any:
    if not hasattr(layer, argument):
        raise ModelError(f"{name} keeps no attribute {argument!r}: it cannot be rebuilt from a record")
    value = getattr(layer, argument)
    return value is not None if switch and (value is None or isinstance(value, Tensor)) else value


def import_name(layer: nn.Module) -> str:
    """``package.module:Class``; the class beneath torch's parametrization wrapper."""
    cls = parametrize.type_before_parametrizations(layer)
    if "<locals>" in cls.__qualname__:
        raise ModelError(f"{cls.__qualname__} is defined inside a function: only a module's own classes can be rebuilt")
    return f"{cls.__module__}:{cls.__qualname__}"


def load_class(name: str, trusted: Collection[str] = ()) -> type[nn.Module]:
    """The class named ``package.module:Class``; only torch's, the toolbox's and those of ``trusted`` packages."""
    module, _, qualname = name.partition(":")
    if not _within(module, trusted):
        raise ArtifactError(
            f"structure.json names {name!r}, which no installed plugin provides: install the plugin that made it"
        )
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, nn.Module) and _within(found.__module__, trusted)):
        raise ArtifactError(f"structure.json names {name!r}, which is not a module class of that package")
    return found


def _within(module: str, trusted: Collection[str]) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in (*TRUSTED, *trusted))
