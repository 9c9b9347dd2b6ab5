"""Which slow tests run: a share of them, decided by the checkout alone, each in its turn."""

from __future__ import annotations

import pytest
from paper_toolbox.testing.rotation import turn

pytest_plugins = ["pytester"]

HOMES = [f"plugin_{i}" for i in range(70)]


def test_a_share_of_the_plugins_has_its_turn() -> None:
    assert turn(HOMES, 1, "now") == set(HOMES)
    assert len(turn(HOMES, 3, "now")) == 24
    assert turn(HOMES, 3, "now") == turn(reversed(HOMES), 3, "now"), "every worker must come to the same"


def test_over_some_states_each_has_its_turn() -> None:
    assert set().union(*(turn(HOMES, 3, str(state)) for state in range(30))) == set(HOMES)


SLOW = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize("case", range(8))
def test_cases(case): pass

@pytest.mark.slow
def test_one(): pass

@pytest.mark.slow
def test_two(): pass

@pytest.mark.slow
def test_three(): pass

@pytest.mark.parametrize("case", range(8))
def test_fast(case): pass
"""


def test_slow_tests_take_turns_by_package_by_file_and_by_parameters(pytester: pytest.Pytester) -> None:
    for place in ("tests/test_elsewhere.py", *(f"plugins/p{i}/test_p{i}.py" for i in range(8))):
        (file := pytester.path / place).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SLOW)
    pytester.makeini("[pytest]\nmarkers = slow: takes long\n")
    rotated = ["-p", "paper_toolbox.testing.rotation", "--rotate", "4", "--collect-only", "-q"]
    lines = pytester.runpytest_subprocess(*rotated).outlines
    assert sum("test_fast" in line for line in lines) == 9 * 8
    slow = [line for line in lines if "::" in line and "test_fast" not in line]
    elsewhere = [line.partition("::")[2] for line in slow if line.startswith("tests")]
    assert len({test.partition("[")[0] for test in elsewhere}) == 2, "every second one of the file"
    assert sum(test.startswith("test_cases") for test in elsewhere) in (0, 2), "with two of its parameters"
    assert len(slow) - len(elsewhere) == 2 * (8 + 3), "two packages, their slow tests whole"
