"""Room for what a method keeps, checked before it is taken."""

from __future__ import annotations

import psutil
import torch

from ..errors import NeedError


def afford(field: str, value: int, each: int, device: torch.device, beside: int = 0) -> None:
    """Refuse a ``field`` (``cbo.particles``) of ``value`` things of ``each`` bytes that ``device`` has no room for.

    ``beside`` bytes are needed whatever the value is.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    needed = value * each + beside
    if needed > free:
        most = max(0, free - beside) // each
        raise NeedError(
            f"{field} = {value}: needs {needed} bytes on {device}, where {free} are free: at most {most} fit"
        )
