"""A session as a function of batches: numpy on the CPU, I/O binding on a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from ...errors import ExportError
from ...kit.batch import Inputs
from ...task import Task
from .session import PROVIDERS, feeds, one_line

Feeds = dict[str, np.ndarray[Any, Any]]


class Runner:
    """Call it as the model it was exported from; ``provider`` is the one in use, in short."""

    def __init__(self, session: ort.InferenceSession, task: Task) -> None:
        self.session = session
        self.task = task
        self.provider = provider_of(session)

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Outputs (B, ...), in the precision the file gives, on the CPU."""
        inputs: Inputs = kwargs or args
        try:
            return torch.from_numpy(run(self.session, feeds(inputs, self.task)))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ExportError(f"ONNX Runtime ({self.provider}) cannot run this batch: {one_line(error)}") from error


def provider_of(session: ort.InferenceSession) -> str:
    """The short name of the provider that comes first in ``session``."""
    name = session.get_providers()[0]
    return next((short for short, long in PROVIDERS.items() if long == name), str(name))


def run(session: ort.InferenceSession, given: Feeds) -> np.ndarray[Any, Any]:
    """The first output for one batch; ONNX Runtime itself moves it to the GPU and back, where there is one."""
    if provider_of(session) == "cpu":
        return np.asarray(session.run(None, given)[0])
    binding = session.io_binding()
    for name, value in given.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(value))
    binding.bind_output(session.get_outputs()[0].name)
    session.run_with_iobinding(binding)
    return np.asarray(binding.copy_outputs_to_cpu()[0])


def bound(session: ort.InferenceSession, given: Feeds) -> Callable[[], None]:
    """One inference of the same batch over and over; on a GPU its inputs and outputs stay there."""
    if provider_of(session) == "cpu":
        return lambda: session.run(None, given)
    binding = session.io_binding()
    for name, value in given.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), "cuda", 0))
    binding.bind_output(session.get_outputs()[0].name, "cuda")

    def once() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return once


def repeat(call: Callable[[], None], seconds: float, low: int = 20, high: int = 1000) -> list[float]:
    """Durations in seconds of at least ``low`` and at most ``high`` calls, after a warm-up of a tenth as many."""
    for _ in range(max(3, low // 10)):
        call()
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while len(durations) < low or (len(durations) < high and time.perf_counter() < end):
        durations.append(timed(call))
    return durations


def timed(call: Callable[[], None]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def quantiles(durations: list[float]) -> dict[str, float]:
    """Shortest, median and 95th percentile in milliseconds; the shortest is what a busy machine disturbs least."""
    ordered = sorted(durations)
    figures = {f"p{q}_ms": 1e3 * ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)] for q in (50, 95)}
    return {"best_ms": 1e3 * ordered[0], **figures}
