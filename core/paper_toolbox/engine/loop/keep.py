"""What a run keeps on disk: metrics, the weights of the epoch asked for, and a checkpoint of the last state."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import artifact
from ...errors import ArtifactError
from ...provenance import changes, provenance
from ..setup.session import Progress, Session
from . import checkpoint
from .shards import cut, cut_state, whole


def save(folder: Path, session: Session, at: Progress) -> None:
    """Metrics and checkpoint, each whole or not at all; all processes call it, the first one writes."""
    main = session.accelerator.is_main_process
    model, optimizer = (whole(part.state_dict(), main) for part in (session.model, session.optimizer))
    if not main:
        return
    artifact.write_history(folder, at.history)
    state = {
        "at": dataclasses.asdict(at),
        "model": model,
        "objective": session.objective.state_dict(),
        "optimizer": optimizer,
        "random": checkpoint.random_state(),
        "plugins": provenance(session.recipe.plugins),
        "processes": session.accelerator.num_processes,
    }
    if (scaler := session.accelerator.scaler) is not None:
        state["scaler"] = scaler.state_dict()
    checkpoint.save(checkpoint_of(folder), state)


def clear(folder: Path) -> None:
    """Remove what a process that was killed had begun to write."""
    for part in list(folder.rglob(".*.part")):
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def restore(folder: Path, session: Session, accept_changes: bool = False) -> Progress:
    """Put the checkpoint's state into ``session``; where it stands."""
    state = checkpoint.load(checkpoint_of(folder))
    changes = list(_changes(state, session))
    if changes and not accept_changes:
        raise ArtifactError(
            f"{folder} was begun otherwise: {'; '.join(changes)}; to go on all the same, add --accept-changes"
        )
    try:
        shards = session.model.state_dict()
        session.model.load_state_dict({name: cut(x, shards.get(name)) for name, x in state["model"].items()})
        session.objective.load_state_dict(state["objective"])
        session.optimizer.load_state_dict(cut_state(state["optimizer"], session.optimizer))
    except (RuntimeError, ValueError, KeyError) as error:
        made = ", ".join(f"{p['package']} {p['version']}" for p in state.get("plugins", [])) or "no plugins"
        why = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{folder}: its checkpoint (made with {made}) does not fit this run: {why}") from error
    if (scaler := session.accelerator.scaler) is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])
    checkpoint.restore_random_state(state["random"])
    return Progress(**state["at"])


def _changes(state: dict[str, Any], session: Session) -> Iterator[str]:
    """What a run that goes on would do in another way than before."""
    yield from changes(state.get("plugins", []), provenance(session.recipe.plugins))
    before, processes = state.get("processes", 1), session.accelerator.num_processes
    if before != processes:
        yield f"it ran in {before} processes, and now in {processes}"


def keep_weights(folder: Path | None, session: Session) -> dict[str, Tensor]:
    """The model's weights, into ``folder`` where there is one, else as copies; all processes call it together."""
    main = session.accelerator.is_main_process
    state: dict[str, Tensor] = whole(session.model.state_dict(), main or folder is None)
    if folder is None:
        return {name: tensor.detach().clone() for name, tensor in state.items()}
    if main:
        artifact.write_weights(folder, state)
    return {}


def checkpoint_of(folder: Path) -> Path:
    """The file of a run's last state."""
    return folder / "checkpoint" / "last.safetensors"
