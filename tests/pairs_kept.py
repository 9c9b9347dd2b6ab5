"""What docs/pairs.json says was trained, shared out among test files so that workers run them at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from paper_toolbox.engine.compatibility.covering import levels_of
from paper_toolbox.engine.compatibility.rehearsal import Rehearsal
from paper_toolbox.files import read_json

FILE = Path(__file__).parents[1] / "docs" / "pairs.json"
SHARES, EACH = 4, 20


@cache
def kept() -> dict[str, Any]:
    """What the file says."""
    content: dict[str, Any] = read_json(FILE)
    return content


def share(number: int) -> list[list[str]]:
    """The rows of one test file out of ``SHARES``, ``EACH`` to a test."""
    rows = kept()["rows"][number::SHARES]
    return [rows[first : first + EACH] for first in range(0, len(rows), EACH)]


def train(rows: Sequence[str]) -> None:
    """Each row trains, and needs care for no pair but those that the file names."""
    rehearsal, lines = Rehearsal(), {why for *_, why in kept()["careful"]}
    for row in rows:
        torch.manual_seed(0)
        for note in rehearsal.train(levels_of(row)):
            pair = [level for level in levels_of(row) if level.partition("=")[0] in note.about]
            assert len(pair) < 2 or note.line in lines, f"{row}: {note.line}: run `toolbox why --out docs`"
