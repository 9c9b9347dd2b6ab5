"""What the learning rate of every group is multiplied by at each step."""

from __future__ import annotations

import math

from ...recipe import Training


def factor(settings: Training, step: int, total: int) -> float:
    """Linear warm-up to 1, then the schedule, which ends at 0; ``step`` counts from 0 to ``total`` - 1."""
    warm = round(settings.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    if settings.schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * done)
    return 1 - done if settings.schedule == "linear" else 1.0
