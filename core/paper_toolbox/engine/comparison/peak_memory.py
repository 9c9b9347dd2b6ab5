"""How much memory a stretch of work needs at its peak: that of every tensor it touches or makes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(work: Callable[[], Any], device: torch.device, held: list[Tensor]) -> int:
    """Bytes at the peak of ``work``: what the allocator says on CUDA, else counted tensor by tensor.

    ``held`` are tensors that are there all along, whether or not ``work`` touches them. What a kernel takes for itself
    meanwhile is not seen on a CPU.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device))
    with _Living(held) as living:
        work()
    return int(living.before + living.most)


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own signature
    """Follows every storage from the first operation that sees it until it is gone."""

    def __init__(self, held: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ditto
        self.before = 0  # bytes of what was there already
        self.now = self.most = 0  # bytes beyond these
        self.known: set[int] = set()
        for tensor in held:
            self.before += self._first_seen(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs or {})):
            if isinstance(given, Tensor):
                self.before += self._first_seen(given)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.now += self._first_seen(tensor)
        self.most = max(self.most, self.now)
        return made

    def _first_seen(self, tensor: Tensor) -> int:
        """The bytes of its storage if that is new, else 0."""
        storage = tensor.untyped_storage()
        if (key := storage._cdata) in self.known:
            return 0
        self.known.add(key)
        size = storage.nbytes()
        weakref.finalize(storage, self._gone, key, size).atexit = False
        return size

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
