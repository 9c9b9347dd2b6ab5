"""Arithmetic wide enough for sums."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, wider types as they are: a sum of float16 overflows at 65504."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
