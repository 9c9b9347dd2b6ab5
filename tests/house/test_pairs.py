"""docs/pairs.md says what docs/pairs.json says, which knows every pair of installed methods: trained, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from paper_toolbox.engine.compatibility.page import page
from paper_toolbox.engine.compatibility.pairs import Pairs, write
from paper_toolbox.engine.compatibility.rehearsal import Rehearsal
from paper_toolbox.engine.progress import Silent
from paper_toolbox.errors import Conflict
from paper_toolbox.files import read_json

DOCS = Path(__file__).parents[2] / "docs"
STALE = "run `toolbox why --out docs`"


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return dict(read_json(DOCS / "pairs.json"))


def test_the_page_is_written_from_its_data(content: dict[str, Any]) -> None:
    assert (DOCS / "pairs.md").read_text("utf-8") == page(content), STALE


def test_every_pair_of_installed_methods_was_trained_or_refused(content: dict[str, Any]) -> None:
    pairs = Pairs(Rehearsal(), content)
    assert pairs.places == content["slots"], STALE
    assert not pairs.left(), STALE


@pytest.mark.slow
def test_what_is_refused_is_refused_for_the_reason_given(content: dict[str, Any]) -> None:
    rehearsal = Rehearsal()
    refused = [([a, b], why) for a, b, why in content["refused"]]
    for levels, why in [*refused, *(([name], why) for name, why in content["alone"].items())]:
        with pytest.raises(Conflict) as found:
            rehearsal.train(levels)
        assert str(found.value) == why, f"{' + '.join(levels)}: {STALE}"


@pytest.mark.slow
def test_of_one_method_the_pairs_alone_are_trained_anew(content: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(DOCS / "pairs.json", tmp_path)
    found = write(tmp_path, ["sgd"], Silent())
    others = [row for row in content["rows"] if "sgd" not in row.split(" + ")]
    assert found["rows"][: len(others)] == others
    assert all("sgd" in row.split(" + ") for row in found["rows"][len(others) :])
    assert sorted(found["refused"]) == sorted(content["refused"])
    assert (tmp_path / "pairs.md").read_text("utf-8") == page(read_json(tmp_path / "pairs.json"))
