"""Pages of measurements say what their data say; the measuring itself takes minutes and is not repeated here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from paper_toolbox.files import read_json

ROOT = Path(__file__).parents[2]
PAGES = {  # script: page
    "compare_null": "compare_null",
    "optimizers_compared": "comparison",
    "optimizer_quality": "optimizer_quality",
}


@pytest.fixture(autouse=True)
def _scripts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_written_from_its_data(name: str) -> None:
    page = ROOT / "docs" / f"{PAGES[name]}.md"
    said = import_module(name).page(read_json(page.with_suffix(".json")))
    assert page.read_text("utf-8") == said, f"run `python benchmarks/{name}.py --out docs --render`"


def test_the_page_of_step_times_is_written_from_its_data() -> None:
    said = import_module("speed_page").page(ROOT / "docs")
    assert (ROOT / "docs" / "optimizer_speed.md").read_text("utf-8") == said, (
        "run `python benchmarks/speed_page.py docs`"
    )


def test_enough_tasks_tell_how_good_the_optimizers_are() -> None:
    found = read_json(ROOT / "docs" / "optimizer_quality.json")
    assert len(found["tasks"]) >= 16
    assert found["seconds"] <= 15 * 60


def test_nothing_is_called_something_as_seldom_as_promised() -> None:
    """Each share of false verdicts may exceed 5 % by chance alone: 17 of 200 do so once in a hundred times."""
    found = read_json(ROOT / "docs" / "compare_null.json")
    assert found["repetitions"] >= 200
    for row in found["rows"]:
        assert max(row["one"], row["family"], row["early"]) <= 0.085 * found["repetitions"], row


def test_enough_optimizers_were_compared() -> None:
    found = read_json(ROOT / "docs" / "comparison.json")
    assert found.keys() == {"digits", "text"}
    for own in found.values():
        assert len(own["rows"]) >= 6
        assert own["rows"][0]["method"] == "adamw"
