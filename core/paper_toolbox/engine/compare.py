"""Compare: the same recipe with several methods, the same seeds for each, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import artifact
from ..errors import ArtifactError, Interrupted, NeedError
from ..files import locked, read_json, write_json
from ..host import Host
from ..recipe import Recipe
from .comparison.comparison import Comparison, Result, decided
from .comparison.trial import trained
from .loop.interrupt import Request, interruptible
from .progress import Show, shown
from .setup.devices import accelerator_of
from .setup.search_space import drawn, ranges
from .train import session_of

TUNING = 1_000_000  # added to the seed: the part of the data held out while tuning is another one
IMPORTED = ["paper_toolbox.engine.comparison.trial", "sklearn.datasets"]  # once, for all workers


def compare(
    comparison: Comparison, out: Path, *, jobs: int | None = None, resume: bool = False, show: Show | None = None
) -> None:
    """Train every method with every seed into ``out``; what is there already is not trained again."""
    for recipe in comparison.recipes.values():  # what cannot be trained at all is refused before anything is
        session_of(recipe, Host(), accelerator_of(recipe)).objective.close()
    _open(comparison, out, resume)
    with locked(out), _workers(comparison, jobs) as pool:
        run = _Run(comparison, out, pool, show or shown())
        run.tune()
        run.train()


def _open(comparison: Comparison, out: Path, resume: bool) -> None:
    if not resume:
        artifact.refuse_existing(out)
        with artifact.created(out) as new:
            write_json(new / "plan.json", comparison.plan())
        return
    if not (out / "plan.json").is_file():
        raise ArtifactError(f"{out} holds no comparison: --resume needs --out FOLDER, one that was begun")
    if read_json(out / "plan.json") != comparison.plan():
        raise ArtifactError(f"{out} holds another comparison: continue it with the options that began it")


@contextmanager
def _workers(comparison: Comparison, jobs: int | None) -> Iterator[ProcessPoolExecutor]:
    """As many processes as ``jobs``, or as suit the machine; whatever goes wrong, they stop within a second."""
    device = next(iter(comparison.recipes.values())).training.device
    gpu = device != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    count = comparison.jobs = jobs or (1 if gpu else os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn" if gpu or not hasattr(os, "fork") else "forkserver")
    context.set_forkserver_preload(IMPORTED)
    stop = context.Event()
    with ProcessPoolExecutor(count, context, initializer=_ready, initargs=(1 if count > 1 else 0, stop)) as pool:
        try:
            yield pool
        except BaseException:  # an interrupt too: what runs now would be lost, however long it took
            stop.set()
            raise


def _ready(threads: int, stop: Any) -> None:
    """Of a worker: Ctrl-C is its parent's affair, the cores are shared, and it does not outlive who began it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()  # not the fork server, which lives as long as its workers

    def watch() -> None:
        while parent and parent.is_alive() and not stop.wait(1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if threads:
        torch.set_num_threads(threads)


class _Run:
    """Hands out the trainings that are still to do, and keeps what comes back."""

    def __init__(self, comparison: Comparison, out: Path, pool: ProcessPoolExecutor, show: Show) -> None:
        self.comparison, self.out, self.pool, self.show = comparison, out, pool, show

    def tune(self) -> None:
        """The same number of tries for each method; the best replaces its recipe."""
        c = self.comparison
        if not c.tune:
            return
        host, tries = Host(), {}
        for label, recipe in c.recipes.items():
            for i, each in enumerate(drawn(recipe, ranges(recipe, host), c.tune, seed=recipe.training.seed)):
                tries[label, i] = _seeded(each, TUNING)
        found = self._all("tuning", {("tuning", f"{label}-{i}"): (label, each) for (label, i), each in tries.items()})
        for label, recipe in c.recipes.items():
            own = [(found["tuning", f"{label}-{i}"], each) for (name, i), each in tries.items() if name == label]
            c.trials[label] = [{"plugins": r.to_dict()["plugins"], "value": o.get("value")} for o, r in own]
            if any("value" in o for o, _ in own):
                c.recipes[label] = dataclasses.replace(max(own, key=_goodness)[1], training=recipe.training)

    def train(self) -> None:
        """Every seed of every method; with ``stop_early`` until all is decided."""
        c = self.comparison
        for end in c.looks or [c.seeds]:
            jobs = {(label, str(s)): (label, _seeded(r, s)) for label, r in c.recipes.items() for s in range(end)}
            found = self._all("training", jobs)
            for (label, seed), result in found.items():
                c.results.setdefault(label, {})[int(seed)] = result
            if end < c.seeds and decided(c):
                self.show.line(f"all is decided after {end} of {c.seeds} seeds")
                break

    def _all(self, title: str, jobs: dict[tuple[str, str], tuple[str, Recipe]]) -> dict[tuple[str, str], Result]:
        """The results of ``jobs``, from their files or trained now."""
        files = {
            key: self.out / "runs" / f"{key[0].replace('+', '_and_')}-{key[1].replace('+', '_and_')}.json"
            for key in jobs
        }
        found = {key: read_json(file) for key, file in files.items() if file.is_file()}
        left = {key: job for key, job in jobs.items() if key not in found}
        self.show.start(title, len(jobs), len(found), "runs")
        with interruptible() as request:
            try:
                for key, result in self._finished(left, request):
                    write_json(files[key], result)
                    found[key] = result
                    self._tell(key, found, jobs)
            finally:
                self.show.stop()
        return found

    def _tell(
        self, key: tuple[str, str], found: dict[tuple[str, str], Result], jobs: Iterable[tuple[str, str]]
    ) -> None:
        """A failure at once, a method when its last run is done, the rest on the bar."""
        label, result = key[0], found[key]
        self.show.advance(len(found), lambda: f"{label} {_told(result)}")
        if "failed" in result:
            self.show.line(f"{label}, {key[1]}: failed: {result['failed']}")
        own = [each for each in jobs if each[0] == label]
        if label in self.comparison.recipes and all(each in found for each in own):
            values = [found[each]["value"] for each in own if "value" in found[each]]
            mean = f", mean {result.get('metric', '')} {np.mean(values):.4f}" if values else ""
            self.show.line(f"{label}: {len(own)} runs{mean}")

    def _finished(
        self, jobs: dict[tuple[str, str], tuple[str, Recipe]], request: Request
    ) -> Iterator[tuple[tuple[str, str], Result]]:
        waiting: dict[Future[Result], tuple[str, str]] = {
            self.pool.submit(trained, recipe.to_dict()): key for key, (_, recipe) in jobs.items()
        }
        while waiting:
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    yield waiting.pop(future), future.result()
                except BrokenProcessPool as error:
                    raise NeedError("a training process died, out of memory perhaps: try fewer with --jobs") from error
            if request.asked:
                raise Interrupted(f"interrupted; continue with the same command and --resume --out {self.out}")


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    training = dataclasses.replace(recipe.training, seed=recipe.training.seed + seed)
    return dataclasses.replace(recipe, training=training)


def _goodness(tried: tuple[Result, Recipe]) -> tuple[float, float]:
    """Of a try: the metric, and where metrics are equal the loss; the first of the best is taken."""
    result = tried[0]
    if "value" not in result:
        return -math.inf, -math.inf
    return result["value"] * (1 if result["higher_is_better"] else -1), -result["figures"]["loss"]


def _told(result: Result) -> str:
    return f"{result['metric']} {result['value']:.4f}" if "value" in result else "failed"
