"""A checkpoint is one safetensors file: tensors as they are, everything else as JSON in its header."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import ArtifactError, PluginError
from ...files import write_tensors

FORMAT = 1


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts, lists, tuples, numbers, text and tensors; the earlier file stays until this one is whole."""
    tensors: dict[str, Tensor] = {}
    header = {"format": str(FORMAT), "state": json.dumps(_pack(state, tensors, "state"))}
    write_tensors(path, tensors, header)


def load(path: Path) -> dict[str, Any]:
    """What ``save`` wrote, equal bit for bit."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: there is nothing to resume") from None
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if header.get("format") != str(FORMAT):
        raise ArtifactError(f"{path}: checkpoint format {header.get('format')!r} is not {FORMAT}")
    state: dict[str, Any] = _unpack(json.loads(header["state"]), tensors)
    return state


def random_state() -> dict[str, Any]:
    """The state of every random generator a run may draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    state["numpy"] = (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Continue every generator where ``random_state`` found it."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$": "tensor", "name": name}
    if isinstance(value, Mapping):
        items = [[k, _pack(v, tensors, f"{where}[{k!r}]")] for k, v in value.items()]
        return {"$": "dict", "items": items}
    if isinstance(value, list | tuple):
        items = [_pack(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]
        return {"$": "tuple", "items": items} if isinstance(value, tuple) else items
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PluginError(
        f"{where} is a {type(value).__name__}: a checkpoint holds tensors, numbers, text and their containers"
    )


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if value["$"] == "tensor":
        return tensors[value["name"]]
    if value["$"] == "dict":
        return {k: _unpack(v, tensors) for k, v in value["items"]}
    return tuple(_unpack(v, tensors) for v in value["items"])
