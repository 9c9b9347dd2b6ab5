"""Weights & Biases: the history of a run, written to the disk; it goes to the service only if asked to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from paper_toolbox import Observer, Record, Run, hookimpl, param
from paper_toolbox.errors import NeedError

QUIET = {"silent": True, "console": "off", "disable_git": True, "x_disable_stats": True, "x_disable_meta": True}


@dataclass(frozen=True, kw_only=True)
class Wandb(Observer):
    """A history of figures by step, and the settings as its config."""

    project: str = param("paper-toolbox", "what the run belongs to")
    mode: Literal["offline", "online"] = param("offline", "online sends every row to the service")
    folder: str | None = param(None, "where its folder wandb is; none: beside the run's folder")

    @contextmanager
    def watch(self, run: Run) -> Iterator[Record]:
        """A run that goes on is the same to wandb; one that was killed is wound back to ``run.step`` first."""
        wandb, note, last = _library(), run.folder / "wandb-run-id", run.step
        how: dict[str, Any] = {"name": run.folder.name, "config": dict(run.settings)}
        if run.resumed and note.exists():
            known, step = note.read_text("utf-8").split()
            whole = int(step) == run.step  # it was closed where it goes on
            how = {"id": known, "resume": "allow"} if whole else {"resume_from": f"{known}?_step={run.step}"}
        settings = wandb.Settings(**QUIET)
        place = self.folder or str(run.folder.parent)
        history, status = wandb.init(project=self.project, mode=self.mode, dir=place, settings=settings, **how), 1
        note.write_text(f"{history.id} -1", "utf-8")

        def record(step: int, figures: Mapping[str, float]) -> None:
            nonlocal last
            history.log(dict(figures), step=step)
            last = step

        try:
            yield record
            status = 0
        finally:  # its own context manager would print the traceback of what ended the run
            history.finish(exit_code=status)
            note.write_text(f"{history.id} {last}", "utf-8")


def _library() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing goes out that nobody asked for
    try:
        import wandb
    except ImportError as error:
        raise NeedError(f"wandb cannot be imported ({error}): pip install wandb") from error
    return wandb


@hookimpl
def observer() -> dict[str, type[Observer]]:
    return {"wandb": Wandb}
