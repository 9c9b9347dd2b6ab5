"""What the processes of one run must do alike: stop after the same step, hold the same buffers, end when one fails."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from ...errors import ModelError, ToolboxError
from .interrupt import Request

PATIENCE = 5.0  #: seconds in which a launcher ends the processes that a failed one has left alone
LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|socket|NCCL|remote process", re.IGNORECASE)
UNUSED = re.compile(r"did not receive grad for rank \d+: ([\d ]+)")


class Agreement:
    """The wish to stop, on which all processes agree about once a second, since all must stop after the same step."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.alone = accelerator.num_processes == 1
        self.wait, self.done, self.began = 1, 0, time.perf_counter()

    def step(self, asked: bool) -> bool:
        """Whether to stop after this step; ``asked``: whether this process was asked to."""
        if self.alone:
            return asked
        self.wait, self.done = self.wait - 1, self.done + 1
        return self.wait == 0 and self.now(asked)

    def now(self, asked: bool) -> bool:
        """Whether any process was asked to stop."""
        if self.alone:
            return asked
        rate = self.done / max(time.perf_counter() - self.began, 1e-6)
        vote = torch.tensor([int(asked), max(1, int(rate))], device=self.accelerator.device)
        torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MAX)
        found, self.wait = vote.tolist()
        self.done, self.began = 0, time.perf_counter()
        return bool(found)


def first_ones(value: Any, accelerator: Accelerator) -> Any:
    """What the first process has for ``value``."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


@torch.no_grad()
def share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """The first process's running statistics, and its other buffers, into all."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            firsts = buffer.contiguous()
            torch.distributed.broadcast(firsts, 0)
            buffer.copy_(firsts)


@contextmanager
def left_alone() -> Iterator[None]:
    """A process that lost another waits for the launcher to end it; only then it says so, after what that one said."""
    try:
        yield
    except RuntimeError as error:
        if not _lost(error):
            raise
        time.sleep(PATIENCE)
        raise ToolboxError("lost the connection to another process of this run: see what that one said") from error


@contextmanager
def told_plainly(model: nn.Module, request: Request) -> Iterator[None]:
    """What torch says of the steps of several processes, in a line; nothing where this one is being ended anyway."""
    try:
        yield
    except RuntimeError as error:
        if found := UNUSED.search(str(error)):
            raise ModelError(_unused(model, [int(i) for i in found[1].split()])) from error
        if request.asked and _lost(error):
            raise SystemExit(1) from error
        raise


def _lost(error: RuntimeError) -> bool:
    """Whether another process ended first; it may do so before this one has joined it."""
    several = torch.distributed.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and bool(LOST.search(str(error))) and "failed to listen" not in str(error)


def _unused(model: nn.Module, indices: list[int]) -> str:
    """indices count the trained parameters."""
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    named = ", ".join(trained[i] for i in indices[:3] if i < len(trained))
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return (
        f"{named}{more}: a batch leaves these parameters out, and the other processes wait for their gradients; "
        "take parallel=ddp_unused"
    )
