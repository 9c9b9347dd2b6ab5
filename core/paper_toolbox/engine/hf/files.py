"""A transformers model as files: the folder that a name means, its configuration, its weights, and their sums."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import ArtifactError, ModelError
from ...files import read_json, sha256
from ..setup.packages import flag, package

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
DIGITS = 16  #: of a SHA-256 that stand in a source: enough to tell files apart


def folder_of(name: str, options: Mapping[str, Any]) -> Path:
    """The folder ``name``, or ``ORG/NAME`` in the hub's cache; ``download=true`` asks the hub for it."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        what = "is a file" if path.exists() else "does not exist"
        raise ModelError(f"hf:{name} cannot be opened: {path} {what}; it takes a folder that save_pretrained wrote")
    hub = package("huggingface_hub", f"hf:{name}")
    patterns = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors"]
    here = not flag(options, "download", False)
    try:
        found = hub.snapshot_download(
            name, revision=options.get("revision"), allow_patterns=patterns, local_files_only=here
        )
    except (OSError, ValueError) as error:
        why = (
            "it is no folder, and not in the hub's cache (?download=true asks the hub)" if here else _first_line(error)
        )
        raise ModelError(f"hf:{name} cannot be opened: {why}") from error
    return Path(found)


def read_config(source: str, folder: Path) -> dict[str, Any]:
    """``config.json``; one that calls for code of its own, which would have to be run, is refused."""
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{source} cannot be opened: {folder} has no {CONFIG}; config.save_pretrained(FOLDER) writes it"
        )
    try:
        config = read_json(folder / CONFIG)
    except ArtifactError as error:
        raise ModelError(f"{source} cannot be opened: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{source} cannot be opened: {folder / CONFIG} names no model_type, such as bert or gpt2")
    if config.get("auto_map"):
        raise ModelError(
            f"{source} cannot be opened: its {CONFIG} calls for code of its own (auto_map), which is never run; "
            f"without auto_map, transformers' own {config['model_type']} is taken where it has one"
        )
    return config


def weight_files(source: str, folder: Path) -> list[Path]:
    """The safetensors files of ``folder``; other forms of weights are refused, a pickle with the reason."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(source, folder)
    start = f"{source} cannot be opened: {folder} has no {WEIGHTS}"
    if pickles := sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES):
        raise ModelError(
            f"{start}; {pickles[0]} is a pickle, which can run code and is never read: "
            "save the model anew with save_pretrained, which writes safetensors"
        )
    raise ModelError(f"{start}; ?pretrained=false starts from random weights")


def read_weights(source: str, files: list[Path]) -> dict[str, Tensor]:
    """All tensors of ``files``, by name."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{source} cannot be opened: {file} is damaged or cut off ({_first_line(error)})"
            ) from error
    return tensors


def sums(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What identifies ``hf:name``, as options of the source; those that it has already stay, and are checked later."""
    source, folder = f"hf:{name}", folder_of(name, options)
    read_config(source, folder)
    found = {"config_sha256": config_sum(folder)}
    if flag(options, "pretrained", True):
        found["weights_sha256"] = weights_sum(weight_files(source, folder))
    return found | {key: options[key] for key in found if key in options}


def check_sum(source: str, options: Mapping[str, Any], key: str, found: str) -> None:
    """Refuse files that have changed since their sum was put into the source."""
    if (asked := options.get(key)) is not None and asked != found:
        what = CONFIG if key.startswith("config") else "weights"
        raise ModelError(
            f"{source} is not what it was: its {what} had {key}={asked} and now has {found}; "
            f"bring the old files back, or name the model without {key} to start anew"
        )


def config_sum(folder: Path) -> str:
    """Of ``config.json``."""
    return sha256(folder / CONFIG)[:DIGITS]


def weights_sum(files: list[Path]) -> str:
    """Of the weights; for several files, of the sums of each."""
    each = [sha256(file) for file in files]
    return (each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest())[:DIGITS]


def _shards(source: str, folder: Path) -> list[Path]:
    """The files that the index names, all of them in ``folder`` itself."""
    start = f"{source} cannot be opened: {folder / INDEX}"
    try:
        names = sorted({str(name) for name in read_json(folder / INDEX)["weight_map"].values()})
    except (ArtifactError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{start} cannot be read: {_first_line(error)}") from error
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise ModelError(f"{start} names {name!r}, which is no safetensors file beside it")
    return [folder / name for name in names]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
