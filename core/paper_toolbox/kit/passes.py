"""Several passes over the batch of one step: the same dropout, statistics that move once, weights that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

Given = ParamSpec("Given")
Found = TypeVar("Found")


def repeatable(
    closure: Callable[Given, Found], tensors: Iterable[Tensor], model: nn.Module | None
) -> Callable[Given, Found]:
    """``closure`` for several calls: each draws what the first one drew, which alone moves the buffers of ``model``.

    ``tensors`` are those trained: the random generators of their devices are meant.
    """
    again: list[Callable[[], AbstractContextManager[None]]] = []

    def run(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        if not again:
            again.append(replay(tensors))
            return closure(*args, **kwargs)
        with again[0](), buffers_kept(model):
            return closure(*args, **kwargs)

    return run


def replay(tensors: Iterable[Tensor]) -> Callable[[], AbstractContextManager[None]]:
    """A context, for any number of uses, in which is drawn what would be drawn now; generators leave as they came."""
    devices = {x.device for x in tensors if x.is_cuda}
    cpu, cuda = torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in devices}

    @contextmanager
    def again() -> Iterator[None]:
        with torch.random.fork_rng(list(cuda)):
            torch.set_rng_state(cpu)
            for device, state in cuda.items():
                torch.cuda.set_rng_state(state, device)
            yield

    return again


def buffers_kept(model: nn.Module | None) -> AbstractContextManager[list[Tensor]]:
    """Running statistics and other buffers come out as they went in."""
    return kept([] if model is None else list(model.buffers()))


@contextmanager
def kept(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """What is done to ``tensors`` inside is taken back exactly, after a failure too; gives them as they were."""
    before = [x.detach().clone() for x in tensors]
    try:
        yield before
    finally:
        with torch.no_grad():  # a copy is exact; going back by subtraction would not be
            for x, value in zip(tensors, before, strict=True):
                x.copy_(value)


@contextmanager
def moved(tensors: Sequence[Tensor], along: Sequence[Tensor], by: float) -> Iterator[None]:
    """Inside, ``tensors`` lie ``by`` times ``along`` further."""
    with kept(tensors):
        with torch.no_grad():
            for x, z in zip(tensors, along, strict=True):
                x.add_(z, alpha=by)
        yield
