"""``toolbox data`` and ``train --check-data`` as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
from command_line import toolbox
from paper_toolbox.engine.data.sources import READERS

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture
def table(tmp_path: Path) -> str:
    generator = np.random.default_rng(0)
    frame = pandas.DataFrame({"a": generator.normal(size=60), "b": np.ones(60), "label": np.arange(60) % 2})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return f"csv:{tmp_path / 't.csv'}?target=label"


def spoil(table: str) -> None:
    path = Path(table.removeprefix("csv:").partition("?")[0])
    frame = pandas.read_csv(path)
    frame.loc[[3, 4], "a"] = np.nan
    frame.to_csv(path, index=False)


def test_data_looks_and_trains_nothing(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = toolbox(capsys, "data", table)
    assert status == 0
    assert "column 'b': every value is the same: nothing to learn from" in " ".join(out.split())
    spoil(table)
    status, out, err = toolbox(capsys, "data", table, "--json")
    assert status == 1
    assert json.loads(out)["errors"] == 1
    assert err.count("\n") == 1
    assert "cannot be trained on: column 'a', row 5 is empty or NaN, and 1 more rows" in err


CHECKED = ("--plugin", "adamp", "--epochs", "1", "--model", "mlp?hidden=4", "--check-data")


@pytest.mark.slow
def test_train_checks_and_goes_on(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = toolbox(capsys, "train", "--data", table, *CHECKED, "--out", str(tmp_path / "run"), "--json")
    assert status == 0
    kept = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert json.loads(out)["data_report"] == kept
    assert kept["warnings"] == 1


def test_train_ends_where_the_check_finds_errors(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(table)
    status, out, err = toolbox(capsys, "train", "--data", table, *CHECKED, "--out", str(tmp_path / "none"))
    assert status == 1
    assert "column 'a', row 5 is empty" in " ".join(out.split())
    assert "cannot be trained on" in err
    assert not (tmp_path / "none").exists()


def test_the_page_names_every_source_and_option() -> None:
    rows = [line.split("|")[1:] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    for scheme, reader in READERS.items():
        told = " ".join(row[2] for row in rows if row[0].strip().startswith(f"`{scheme}:"))
        assert set(reader.options) == set(re.findall(r"`(\w+)[=`]", told)), scheme
