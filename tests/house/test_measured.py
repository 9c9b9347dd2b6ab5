"""Pages of measurements say what their data say; the measuring itself takes minutes and is not repeated here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from paper_toolbox.files import read_json

ROOT = Path(__file__).parents[2]
PAGES = {"compare_null": "compare_null", "optimizers_compared": "comparison"}  # script: page


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_written_from_its_data(name: str) -> None:
    page = ROOT / "docs" / f"{PAGES[name]}.md"
    said = script(name).page(read_json(page.with_suffix(".json")))
    assert page.read_text("utf-8") == said, f"run `python benchmarks/{name}.py --out docs --render`"


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
