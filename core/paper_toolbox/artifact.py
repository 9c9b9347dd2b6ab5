"""A run folder: what every stage reads and writes. No pickle is ever read; every file is whole or absent."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .errors import ArtifactError
from .files import read_json, sha256, write_json, write_tensors, write_text, write_yaml
from .recipe import Recipe
from .task import Task, TensorSpec

FORMAT = 1
WEIGHTS = "model.safetensors"
PLAN = "compress-plan.json"  #: stands in the folder of a compression until that is finished


class Artifact:
    """A finished run folder, opened and checked; its weights are loaded by ``engine.restore``."""

    def __init__(self, folder: Path, recipe: Recipe, summary: dict[str, Any], structure: dict[str, Any]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.summary = summary
        self.structure = structure

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Open ``folder``; a missing, damaged, unfinished, altered or newer one is an ``ArtifactError``."""
        if not folder.is_dir():
            raise ArtifactError(f"{folder} is not a run folder: `toolbox train --out {folder}` makes one")
        if (command := unfinished(folder)) is not None:
            raise ArtifactError(f"{folder} holds an unfinished run: finish it with `{command}`")
        summary, structure = (_formatted(folder / name) for name in ("summary.json", "structure.json"))
        artifact = cls(folder, read_recipe(folder), summary, structure)
        artifact._check_weights()
        return artifact

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS

    @property
    def task(self) -> Task:
        """What the model was trained for."""
        return task_from_json(self.summary["task"])

    @property
    def figures(self) -> dict[str, Any]:
        """Loss and metric on the validation part."""
        return dict(self.summary["figures"])

    def history(self) -> list[dict[str, Any]]:
        """The metrics of every epoch."""
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def _check_weights(self) -> None:
        if not self.weights.exists():
            raise ArtifactError(f"{self.weights} is missing")
        if sha256(self.weights) != self.summary.get("weights_sha256"):
            raise ArtifactError(f"{self.weights} is truncated or altered: its SHA-256 is not the one in summary.json")


def read_recipe(folder: Path) -> Recipe:
    """The resolved recipe of a run folder, finished or not."""
    path = folder / "recipe.yaml"
    try:
        return Recipe.from_dict(yaml.safe_load(path.read_text("utf-8")), str(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: {folder} is not a run folder") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def unfinished(folder: Path) -> str | None:
    """The command that goes on with what ``folder`` holds; None where there is nothing to go on with."""
    if (folder / "summary.json").exists():
        return None
    if (folder / PLAN).exists():
        return f"toolbox compress --resume --out {folder}"
    return f"toolbox train --resume --out {folder}" if (folder / "recipe.yaml").exists() else None


def refuse_existing(path: Path | None) -> None:
    """An output that is already there is never written over; an empty folder is as good as none."""
    if path is None or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    command = unfinished(path)
    unless = f" with an unfinished run: finish it with `{command}`," if command else ":"
    raise ArtifactError(f"{path} already exists{unless} choose another --out, or remove it")


@contextmanager
def created(folder: Path) -> Iterator[Path]:
    """A folder in the making, which becomes ``folder`` when the block ends well, and vanishes when not.

    It appears with its first files in it: no kill leaves an empty one, and of two processes one alone gets it.
    """
    refuse_existing(folder)
    if folder.is_dir():  # and empty: somebody made it for us
        yield folder
        return
    making = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        making.mkdir(parents=True, exist_ok=True)
        yield making
        making.rename(folder)
    except OSError as error:
        raise ArtifactError(f"cannot create {folder}: {error.strerror or error}") from error
    except ArtifactError as error:  # of a file in it: people know the folder by its name to be
        raise ArtifactError(str(error).replace(str(making), str(folder))) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def free_name(folder: Path) -> Path:
    """``folder``, or the first of ``folder-2``, ``folder-3`` … that does not exist."""
    candidate, count = folder, 1
    while candidate.exists():
        count += 1
        candidate = folder.with_name(f"{folder.name}-{count}")
    return candidate


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """``recipe.yaml``."""
    write_yaml(folder / "recipe.yaml", recipe.to_dict())


def write_history(folder: Path, history: Iterable[dict[str, Any]]) -> None:
    """``metrics.jsonl``, one epoch a line."""
    write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history))


def write_structure(folder: Path, edits: list[dict[str, Any]], quantization: dict[str, Any] | None = None) -> None:
    """``structure.json``: the edits since the recipe's model, and the quantization planned for export."""
    write_json(folder / "structure.json", {"format": FORMAT, "edits": edits, "quantization": quantization})


def write_weights(folder: Path, state: dict[str, Any]) -> None:
    """``model.safetensors`` of a state dict; tensors that share memory are written once."""
    names: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        first = names.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name, name)
        if first != name:
            aliases[name] = first
    unique = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items() if name not in aliases}
    # one entry: safetensors writes several in any order, and equal weights must be equal files
    metadata = {"aliases": json.dumps(aliases)} if aliases else {"format": "pt"}
    write_tensors(folder / WEIGHTS, unique, metadata)


def read_weights(folder: Path) -> dict[str, Any]:
    """The state dict ``write_weights`` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            told = file.metadata() or {}
        aliases = {k.removeprefix("alias:"): v for k, v in told.items() if k.startswith("alias:")}  # as written once
        aliases |= json.loads(told.get("aliases", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    return {**state, **{name: state[first] for name, first in aliases.items()}}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """``summary.json``, written last: its presence says that the run is finished."""
    write_json(folder / "summary.json", {"format": FORMAT, **summary, "weights_sha256": sha256(folder / WEIGHTS)})


def task_to_json(task: Task) -> dict[str, Any]:
    """``task`` as JSON can write it."""
    return dataclasses.asdict(task)


def task_from_json(content: dict[str, Any]) -> Task:
    """The task ``task_to_json`` wrote."""
    inputs = tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in content["inputs"])
    return Task(**{**content, "inputs": inputs, "classes": tuple(content["classes"])})


def _formatted(path: Path) -> dict[str, Any]:
    content = read_json(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        why = "made by a newer Paper Toolbox: upgrade it" if newer else f"this Paper Toolbox reads format {FORMAT}"
        raise ArtifactError(f"{path}: format {found!r}: {why}")
    return dict(content)
