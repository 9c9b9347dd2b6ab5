"""One run of a comparison, in a worker: nothing of it is kept but its figures, its time and its memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...errors import ToolboxError
from ...host import Host
from ...recipe import Recipe
from ..loop.fit import Fit
from ..progress import Silent
from ..setup.devices import accelerator_of
from ..setup.session import Sample, Session
from ..train import session_of
from .comparison import Result
from .peak_memory import peak_memory


def trained(content: dict[str, Any]) -> Result:
    """The run of a recipe as ``Recipe.to_dict`` writes it; ``failed`` says why there are no figures."""
    recipe = Recipe.from_dict(content)
    try:
        fit = Watched(session_of(recipe, Host(), accelerator_of(recipe)))
        figures = fit.run()
    except ToolboxError as error:
        return {"failed": str(error)}
    except (RuntimeError, ArithmeticError) as error:  # a matrix without inverse, memory that is spent: of this run only
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    task = fit.session.data.task
    if not math.isfinite(value := figures[task.metric]):
        return {"failed": f"the {task.metric} became {value}"}
    about = {"metric": task.metric, "higher_is_better": task.higher_is_better, "value": value}
    times = {"step_s": fit.step_seconds(), "seconds": fit.at.seconds, "memory": fit.peak}
    return about | times | {"figures": figures, "history": fit.at.history}


class Watched(Fit):
    """A training of whose last epoch the first step, with a whole batch, is watched for its memory.

    The time of that step does not count, nor that of the first, which builds and compiles.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session, None, Silent())
        self.peak: int | None = None  # bytes; none for a regimen, whose steps are its own
        self.apart: list[float] = []  # seconds of the steps that do not count

    def take(self, window: list[Sample]) -> None:
        step, each, total = self.at.step, self.session.steps_per_epoch, self.session.steps_total
        watched = max(total - each, min(1, total - 1))  # not the very first: the optimizer's state is made in that
        began, inside = time.perf_counter(), super().take
        if step == watched:
            self.peak = peak_memory(lambda: inside(window), self.session.accelerator.device, list(held(self.session)))
        else:
            inside(window)
        if step in (0, watched):
            self.apart.append(time.perf_counter() - began)

    def step_seconds(self) -> float:
        """Of a step, batches included."""
        others = self.at.step - len(self.apart)
        return (self.at.seconds - sum(self.apart)) / others if others else self.at.seconds / self.at.step


def held(session: Session) -> Iterator[Tensor]:
    """Weights, buffers, gradients and what the optimizer keeps."""
    for module in (session.model, session.objective):
        yield from module.buffers()
        for p in module.parameters():
            yield from (p,) if p.grad is None else (p, p.grad)
    for state in session.optimizer.state.values():
        yield from (x for x in state.values() if isinstance(x, torch.Tensor))
