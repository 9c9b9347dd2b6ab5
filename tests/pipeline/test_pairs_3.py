"""Every two installed methods, part 3 of 4: each combination of docs/pairs.json really trains."""

from __future__ import annotations

import pairs_kept
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("rows", pairs_kept.share(2), ids=lambda rows: str(rows[0]))
def test_combinations_train(rows: list[str]) -> None:
    pairs_kept.train(rows)
