"""Batches gathered into optimizer steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..setup.session import Sample


def windows(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """The samples of one optimizer step after the other."""
    window: list[Sample] = []
    for sample in samples:
        window.append(sample)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
