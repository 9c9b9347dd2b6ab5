"""Running an exported model: accuracy, latency, throughput, and which node runs where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...artifact import task_from_json
from ...errors import ExportError, NeedError
from ...kit.batch import Inputs
from ...task import Task
from ..loop.evaluate import evaluate, target_scale
from .nodes import count, placement
from .provider import session
from .runner import Feeds, Runner, bound, quantiles, repeat, timed
from .session import feeds, read_metadata

__all__ = ["latency", "read_metadata", "read_task", "run_onnx", "session"]


def run_onnx(
    path: Path,
    batches: Iterable[tuple[Inputs, Tensor]] | None = None,
    *,
    provider: str = "auto",
    bench: bool = False,
    nodes: bool = False,
    batch_size: int = 64,
    task: Task | None = None,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Figures of the model at ``path``; ``provider`` in the result says what ran it.

    ``batches``: accuracy, or rmse in the targets' unit. ``bench``: latency at batch 1, samples per second at
    ``batch_size``, measured for about ``seconds`` each after a warm-up. ``nodes``: nodes by provider and type.
    """
    metadata = read_metadata(path)
    task = task or read_task(path, metadata)
    runner = Runner(session(path, provider), task)
    report: dict[str, Any] = {"model": str(path), "provider": runner.provider, "precision": metadata.get("precision")}
    first: Inputs | None = None
    if batches is not None:
        first = next((inputs for inputs, _ in batches), None)
        report |= evaluate(runner, batches, task, target_scale(_json(path, metadata, "preprocessing")))
    if bench:
        given = feeds(first, task) if first is not None else synthetic(task)
        report["latency"] = {"batch_size": 1, **quantiles(repeat(bound(runner.session, sized(given, 1)), seconds))}
        median = quantiles(repeat(bound(runner.session, sized(given, batch_size)), seconds))["p50_ms"]
        report["throughput"] = {"batch_size": batch_size, "samples_per_second": 1e3 * batch_size / median}
    if nodes:
        report["nodes"] = count(placement(path, runner.provider))
    return report


def latency(
    paths: Sequence[Path], given: Feeds, rounds: int = 100, provider: str = "cpu", threads: int = 1
) -> list[dict[str, float]]:
    """Median and 95th percentile of each model on the same inputs, in milliseconds.

    One run of each per round, the order turned round by round, so that a slow moment of the machine strikes all alike.
    One thread each: of several, the slowest is timed, and on a busy machine that is a neighbour's doing.
    """
    opened = [session(path, provider, threads=threads, spinning=False) for path in paths]
    calls = [bound(s, given) for s in opened]
    durations: list[list[float]] = [[] for _ in calls]
    for n in range(-max(3, rounds // 10), rounds):
        for k in range(len(calls)):
            which = (k + n) % len(calls)
            spent = timed(calls[which])
            if n >= 0:
                durations[which].append(spent)
    return [quantiles(d) for d in durations]


def read_task(path: Path, metadata: dict[str, str]) -> Task:
    """The task in the metadata ``export`` wrote."""
    if "task" not in metadata:
        raise NeedError(f"{path} does not say what it is for: only files of `toolbox export` can be run")
    try:
        return task_from_json(_json(path, metadata, "task"))
    except (KeyError, TypeError) as error:
        raise ExportError(f"{path}: its metadata 'task' cannot be read: {error}") from error


def _json(path: Path, metadata: dict[str, str], name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(metadata.get(name) or "{}"))
    except ValueError as error:
        raise ExportError(f"{path}: its metadata {name!r} is no JSON: {error}") from error


def synthetic(task: Task, samples: int = 1) -> Feeds:
    """Made-up inputs of the right shapes: normal numbers, ids from the vocabulary, masks of ones."""
    generator = np.random.default_rng(0)
    made: Feeds = {}
    for spec in task.inputs:
        shape = (samples, *spec.shape)
        if spec.vocabulary:
            made[spec.name] = generator.integers(0, spec.vocabulary, shape).astype(spec.dtype)
        elif spec.dtype.startswith("float"):
            made[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        else:
            made[spec.name] = np.ones(shape, spec.dtype)
    return made


def sized(given: Feeds, samples: int) -> Feeds:
    """The first ``samples`` rows, begun again where there are fewer."""
    return {name: np.resize(rows, (samples, *rows.shape[1:])) for name, rows in given.items()}
