"""Reports of runs: what they say is true, and they need no network."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.report import report
from paper_toolbox.engine.reports.outcome import Outcome, outcome
from paper_toolbox.engine.train import train
from paper_toolbox.host import Host
from paper_toolbox.recipe import assemble

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


def trained(folder: Path, **flags: Any) -> Artifact:
    settings = {"epochs": 1, "device": "cpu", **flags}
    return train(assemble(Host(), None, ["adamw"], [], settings), folder / "run", Host(), show=Silent())


def titles(run: Artifact) -> list[str]:
    page = (run.folder / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:|https://(arxiv|proceedings)\S+")', page)
    return re.findall(r"<h2>(.+?)</h2>", page)


def test_of_classes(tmp_path: Path) -> None:
    run = trained(tmp_path, data="digits", model="mlp?hidden=16", epochs=2)
    found = report(run, Host())["accuracy"]
    assert found["value"] == pytest.approx(run.figures["accuracy"])
    assert found["low"] < found["value"] < found["high"]
    right, wrong = "What it saw: right", "What it saw: wrong"
    assert titles(run) == ["Methods", "Learning curve", "Confusion matrix", "Calibration", right, wrong, "Recipe"]
    card = (run.folder / "MODEL_CARD.md").read_text("utf-8")
    assert f"accuracy on the validation part: {found['value']:.4f}" in card
    assert "`adamw` (optimizer), paper-toolbox-adamw" in card


def test_of_numbers(tmp_path: Path) -> None:
    run = trained(tmp_path, data="diabetes", model="mlp?hidden=16")
    found = report(run, Host())["rmse"]
    assert found["value"] == pytest.approx(run.figures["rmse"], rel=1e-5)
    saw = ["What it saw: closest", "What it saw: farthest"]
    assert titles(run) == ["Methods", "Learning curve", "Predicted against true", *saw, "Recipe"]
    assert 100 < float(outcome(run, Host()).targets.mean()) < 200, "the targets are in their own unit"


def test_of_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    run = trained(tmp_path, data=f"text:{tmp_path}/text.txt?length=16", model="gpt?width=16&depth=1&heads=2")
    assert report(run, Host())["accuracy"]["value"] == pytest.approx(run.figures["accuracy"])
    errors, saw = ["Calibration", "Most frequent confusions"], ["What it saw: right", "What it saw: wrong"]
    assert titles(run) == ["Methods", "Learning curve", *errors, *saw, "Recipe"]
    passages = (run.folder / "report.html").read_text("utf-8").split('<p class="passage">')[1:]
    assert len(passages) == 6
    assert all("background: rgba(" in passage and "% sure" in passage for passage in passages)


def test_calibration_of_one_that_knows_what_it_does_not_know() -> None:
    """Confident answers are right, even odds are right half of the time: the error is 0; overconfidence shows."""
    logit = math.log(3.0)  # three to one: right in three of four cases
    outputs = torch.tensor([[logit, 0.0]] * 400)
    targets = (torch.arange(400) % 4 == 0).long()
    true: Any = Outcome(outputs, targets, None, None)  # type: ignore[arg-type]  # neither is looked at
    assert true.calibration_error() == pytest.approx(0, abs=1e-6)
    sure: Any = Outcome(outputs * 100, targets, None, None)  # type: ignore[arg-type]  # ditto
    assert sure.calibration_error() == pytest.approx(0.25, abs=1e-6)
    assert sure.confusion().tolist() == [[300, 0], [100, 0]]
