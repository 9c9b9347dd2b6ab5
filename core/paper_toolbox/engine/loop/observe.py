"""Observers: they are told every row of a run, and leave no trace in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import catalog
from ...errors import PluginError, ToolboxError
from ...kinds import Observer, Record, Run
from ...recipe import Recipe, explain
from ..setup.session import Progress
from .checkpoint import random_state, restore_random_state

Named = tuple[str, Observer]


@dataclass
class Post:
    """An observer at work, until it has ``failed``."""

    name: str
    observer: Observer
    context: AbstractContextManager[Record]
    record: Record
    failed: bool = False


class Watch:
    """The observers of one run; what the first to fail raised is kept as ``failed``, for the run to stop."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.failed: ToolboxError | None = None

    @contextmanager
    def over(self, run: Run, observers: Sequence[Named]) -> Iterator[None]:
        """Open all of them; close them as the block ends, whose own error goes before theirs."""
        try:
            for name, observer in observers:
                with _asked(name):
                    context = observer.watch(run)
                    self.posts.append(Post(name, observer, context, context.__enter__()))
            yield
        except BaseException as error:
            self._close(error)
            raise
        self._close(None)
        if self.failed is not None:
            raise self.failed

    def stepped(self, at: Progress, loss: Tensor, optimizer: Any, seconds: float) -> bool:
        """Tell of a step, those whom it concerns; whether one failed. ``loss`` () is read only if someone asks."""
        wanted = [post for post in self.posts if at.step % post.observer.every == 0]
        if not wanted:
            return self.failed is not None
        row = {"epoch": at.epoch + 1, "batch_loss": loss.item(), "seconds": round(seconds, 3)}
        rate = optimizer.param_groups[0].get("lr")
        return self._tell(wanted, at.step, row if rate is None else row | {"lr": float(rate)})

    def evaluated(self, row: Mapping[str, Any]) -> bool:
        """Tell of an epoch's end; whether one failed. ``row`` is as in metrics.jsonl."""
        return self._tell(self.posts, row["step"], {name: value for name, value in row.items() if name != "step"})

    def finished(self, step: int, kept: Mapping[str, Any]) -> None:
        """Tell what the run has kept."""
        self._tell(self.posts, step, {f"kept_{name}": value for name, value in kept.items() if name != "step"})

    def _tell(self, posts: Sequence[Post], step: int, figures: Mapping[str, float]) -> bool:
        for post in (post for post in posts if not post.failed):
            try:
                with _asked(post.name):
                    post.record(step, dict(figures))
            except ToolboxError as error:
                post.failed, self.failed = True, self.failed or error
        return self.failed is not None

    def _close(self, error: BaseException | None) -> None:
        """The last opened first; what they answer to ``error`` does not count, it stays the run's."""
        while self.posts:
            post = self.posts.pop()
            try:
                with _asked(post.name):
                    told = (type(error), error, error.__traceback__) if error else (None, None, None)
                    post.context.__exit__(*told)
            except ToolboxError as failed:
                self.failed = self.failed or failed


def run_of(recipe: Recipe, folder: Path, resumed: bool, step: int) -> Run:
    """What observers are told of a run as it starts; they do not learn of each other."""
    rest = recipe.unobserved()
    settings = {name: value for name, value, _ in explain(rest)} | {"plugins": [c.name for c in rest.plugins]}
    return Run(folder, settings, resumed, step)


@contextmanager
def _asked(name: str) -> Iterator[None]:
    """What an observer raises bears its name; the random numbers that it draws are put back."""
    state = random_state()
    try:
        yield
    except ToolboxError:
        raise
    except (Exception, SystemExit) as error:  # whatever a guest and its library may raise: it is named and chained
        card = catalog.find(name, "observer")
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"{card.package} {card.version}: observer {name} failed: {why}") from error
    finally:
        restore_random_state(state)
