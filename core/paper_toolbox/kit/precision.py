"""Arithmetic wide enough for sums and exponentials."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, wider types as they are: a sum of float16 overflows at 65504."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def exact(x: Tensor) -> AbstractContextManager[object]:
    """Within it, matrix products on the device of ``x`` keep the type of their inputs, under autocast too."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
