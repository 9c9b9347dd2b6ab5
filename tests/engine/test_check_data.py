"""What the check of data finds: every fault planted here, and nothing in data without faults."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from paper_toolbox.engine.data.check import Report, check_data, refuse_errors
from paper_toolbox.errors import DataError
from paper_toolbox.host import Host
from PIL import Image

Table = Callable[..., str]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Writes a table of sound columns and those given; its source."""

    def write(rows: int = 200, name: str = "t", seed: int = 0, **columns: Any) -> str:
        generator = np.random.default_rng(seed)
        sound = {"a": generator.normal(size=rows), "b": generator.normal(size=rows), "label": np.arange(rows) % 2}
        pandas.DataFrame(sound | columns).to_csv(tmp_path / f"{name}.csv", index=False)
        return f"csv:{tmp_path / f'{name}.csv'}?target=label"

    return write


def checked(source: str, **more: Any) -> Report:
    return check_data(source, Host(), **more)


def said(report: Report, level: str) -> list[str]:
    return [each["message"] for each in report["findings"] if each["level"] == level]


def test_sound_data_is_called_sound(table: Table) -> None:
    report = checked(table())
    assert report["findings"] == []
    assert report["samples"] == {"training": 160, "validation": 40}
    assert report["guessing"] == {"accuracy": 0.5}
    refuse_errors(report)


def test_every_empty_and_infinite_value_is_listed_at_once(table: Table) -> None:
    a, b = np.arange(200.0), np.arange(200.0)
    a[[3, 7]], b[9] = np.nan, np.inf
    word = np.where(np.arange(200) == 5, None, "w")  # type: ignore[call-overload]  # None for no text
    word[:50] = np.where(word[:50] == "w", "v", word[:50])
    label = np.where(np.arange(200) == 8, np.nan, np.arange(200) % 2)
    report = checked(table(a=a, b=b, word=word, label=label))
    assert said(report, "error") == [
        "column 'a', row 5 is empty or NaN, and 1 more rows",
        "column 'word', row 7 is empty or NaN",
        "target column 'label', row 10 is empty or NaN",
        "row: sample 9, column 'b' is inf: every value must be a finite number",
    ]
    found = {row["column"]: (row["nan"], row["infinite"]) for row in report["not_finite"]}
    assert found == {"a": (2, 0), "b": (0, 1), "word": (1, 0), "label": (1, 0)}
    with pytest.raises(DataError, match=r"cannot be trained on: column 'a', row 5 .* \(and 3 more\)"):
        refuse_errors(report)


def test_columns_that_teach_nothing(table: Table) -> None:
    rare, wild = np.zeros(200), np.random.default_rng(1).normal(size=200)
    rare[0], wild[17] = 1, -99999
    report = checked(table(same=np.ones(200), rare=rare, wild=wild, label=np.arange(200) % 2), validation=0.01)
    columns = report["columns"]
    assert [row["column"] for row in columns["constant"]] == ["same"]
    assert [row["column"] for row in columns["near_constant"]] == ["rare"]
    assert [(row["column"], row["value"]) for row in columns["outliers"]] == [("wild", -99999.0)]
    assert len(said(report, "warning")) == 3


def test_copies_and_answers_that_contradict(table: Table) -> None:
    generator = np.random.default_rng(0)
    x, label = generator.normal(size=200), np.arange(200) % 2
    x[100:] = x[:100]  # every sample twice
    label[100:110] = 1 - label[:10]
    report = checked(table(a=x, b=x, label=label))
    twice = report["twice"]
    assert twice["training"] + twice["validation"] + twice["across"] == 100
    assert twice["across"] > 20
    assert twice["unlike"] == 20
    assert twice["at_best"] == pytest.approx(0.95)
    words = " ".join(said(report, "warning"))
    assert f"{twice['across']} validation samples" in words
    assert "no model can be right in more than 95.0%" in words


def test_classes_that_are_uneven_or_lack_in_a_part(table: Table) -> None:
    label = np.where(np.arange(200) < 190, "many", np.where(np.arange(200) < 198, "few", "two"))
    report = checked(table(label=label), validation=0.02)
    assert report["classes"][0] == {"class": "many", "training": 186, "validation": 4}
    assert said(report, "warning") == [
        "class 'many' has 93 times as many samples as the rarest, 'two'; guessing it gives accuracy 1.000",
        "classes 'few', 'two': no validation sample",
    ]
    single = checked(table(label=np.where(np.arange(200) < 199, "many", "one")))
    assert said(single, "error") == ["class 'one' has 1 sample; the split needs at least 2 of each class"]
    assert single["samples"] == {"training": 200, "validation": 0}


def test_targets_of_a_regression(table: Table) -> None:
    label = np.random.default_rng(0).normal(size=200)
    label[4] = 1e6
    report = checked(table(label=label))
    assert report["targets"]["label"]["max"] == 1e6
    assert said(report, "warning")[0].startswith("target 'label': 1 values lie far off the others")
    assert "nothing to learn" in said(checked(table(label=np.full(200, 0.5))), "warning")[0]
    plain = checked("diabetes")
    assert plain["guessing"]["rmse"] == pytest.approx(77, abs=6)


def test_validation_text_that_was_trained_on(tmp_path: Path) -> None:
    fresh = "".join(chr(97 + i) for i in np.random.default_rng(0).integers(0, 26, 4000))
    (tmp_path / "t.txt").write_text(fresh + fresh[:1000])  # the end, which is held out, is the beginning once more
    report = checked(f"text:{tmp_path / 't.txt'}?length=30")
    assert report["text_seen"] > 0.8
    assert "of the validation text occurs in the training text" in said(report, "warning")[-1]
    (tmp_path / "t.txt").write_text(fresh)
    assert checked(f"text:{tmp_path / 't.txt'}?length=30")["findings"] == []


def test_images_equal_and_blank(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "i" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            if i < 2:
                pixels[:] = 255 if i else 7
            Image.fromarray(pixels).save(tmp_path / "i" / name / f"{i}.png")
    report = checked(f"folder:{tmp_path / 'i'}?size=8")
    assert report["blank"] == 4
    assert report["twice"]["unlike"] == 4  # a cat and a dog that are both white


def test_data_that_came_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "split_data.py").write_text(
        "from paper_toolbox.engine.data.open_data import open_data\ndef data():\n    return open_data('wine')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    report = checked("split_data:data")
    assert report["samples"] == {"training": 142, "validation": 36}
    assert [row["training"] for row in report["classes"]] == [57, 47, 38]


def test_inputs_and_targets_of_unlike_number_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((9, 2)), y=np.arange(10) % 2)
    with pytest.raises(DataError, match="x has 9 samples but there are 10 targets"):
        checked(f"npz:{tmp_path / 'd.npz'}")


def test_validation_data_of_its_own(table: Table) -> None:
    source, held = table(), table(rows=50, name="held")  # the same generator: its first rows are the same
    report = checked(source, validation_data=held)
    assert report["samples"] == {"training": 200, "validation": 50}
    bad = checked(source, validation_data=table(rows=50, name="bad", seed=1, a=np.full(50, np.nan)))
    assert re.fullmatch(
        r"csv:.*bad.csv\?target=label: column 'a', row 2 is empty or NaN, and 49 more rows", said(bad, "error")[0]
    )


@pytest.mark.parametrize("source", ["digits", "wine", "breast_cancer", "data_of_two_inputs:open_data"])
def test_every_kind_of_source_can_be_checked(source: str) -> None:
    report = checked(source)
    assert report["errors"] == 0
    assert sum(report["samples"].values()) > 60
