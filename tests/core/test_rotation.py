"""Which plugins run their slow tests: a share of them, decided by the checkout alone, each in its turn."""

from __future__ import annotations

from paper_toolbox.testing.rotation import turn

HOMES = [f"plugin_{i}" for i in range(70)]


def test_a_share_of_the_plugins_has_its_turn() -> None:
    assert turn(HOMES, 1, "now") == set(HOMES)
    assert len(turn(HOMES, 3, "now")) == 24
    assert turn(HOMES, 3, "now") == turn(reversed(HOMES), 3, "now"), "every worker must come to the same"


def test_over_some_states_each_has_its_turn() -> None:
    assert set().union(*(turn(HOMES, 3, str(state)) for state in range(30))) == set(HOMES)
