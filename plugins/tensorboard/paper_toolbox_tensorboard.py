"""TensorBoard: every figure of a run as a curve, its settings as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_toolbox import Observer, Record, Run, hookimpl, param
from paper_toolbox.errors import NeedError, ParamError


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Observer):
    """A scalar by figure and step, in float32."""

    log_dir: str | None = param(None, "each run writes into a folder of its name there; none: tensorboard in its own")

    @contextmanager
    def watch(self, run: Run) -> Iterator[Record]:
        """What an earlier start told of later steps, TensorBoard forgets: that is its ``purge_step``."""
        folder = Path(self.log_dir) / run.folder.name if self.log_dir else run.folder / "tensorboard"
        if folder.exists() and not run.resumed:
            raise ParamError(f"{folder} exists already: name another log_dir, or remove it")
        with _writer(folder, run.step + 1) as writer:
            if not run.resumed:
                writer.add_text("settings", table(run.settings))

            def record(step: int, figures: Mapping[str, float]) -> None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)
                writer.flush()  # a run that is killed has its rows

            yield record


def _writer(folder: Path, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise NeedError(f"tensorboard cannot be imported ({error}): pip install tensorboard") from error
    return SummaryWriter(str(folder), purge_step=purge_step)


def table(settings: Mapping[str, Any]) -> str:
    """Markdown."""
    rows = (f"| {name} | {value} |" for name, value in settings.items())
    return "\n".join(["| setting | value |", "|---|---|", *rows])


@hookimpl
def observer() -> dict[str, type[Observer]]:
    return {"tensorboard": TensorBoard}
