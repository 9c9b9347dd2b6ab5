"""compare, report, inspect and reproduce as a user types them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from paper_toolbox_cli.app import main

SMALL = ["--model", "mlp?hidden=8&depth=1", "--data", "wine", "--epochs", "2", "--device", "cpu"]


def toolbox(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of one command in this process."""
    monkeypatch.setattr(sys, "argv", ["toolbox", *words])
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.slow
def test_a_comparison(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["compare", "-p", "adamw", "-p", "sgd", "--seeds", "2", *SMALL, "--out", str(tmp_path / "out")]
    status, out, _ = toolbox(capsys, monkeypatch, *words, "--json")
    assert status == 0
    assert [row["method"] for row in json.loads(out)["rows"]] == ["adamw", "sgd"]
    status, out, _ = toolbox(capsys, monkeypatch, *words, "--resume")
    assert status == 0
    assert "more seed" in out or "no difference worth more seeds" in out
    assert "report.html" in out
    status, _, err = toolbox(capsys, monkeypatch, *words)
    assert (status, err.count("\n")) == (1, 1)
    assert "already exists" in err


@pytest.mark.slow
def test_a_run_is_told_inspected_and_reproduced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    assert toolbox(capsys, monkeypatch, "train", "-p", "adamp", *SMALL, "--out", run)[0] == 0
    assert {"report.html", "MODEL_CARD.md"} <= {file.name for file in (tmp_path / "run").iterdir()}
    (tmp_path / "run" / "report.html").unlink()
    assert "accuracy" in json.loads(toolbox(capsys, monkeypatch, "report", run, "--json")[1])
    assert (tmp_path / "run" / "report.html").is_file()
    assert toolbox(capsys, monkeypatch, "export", run)[0] == 0
    file = str(tmp_path / "run" / "model.onnx")
    status, out, _ = toolbox(capsys, monkeypatch, "inspect", file, "--provider", "cpu")
    assert status == 0
    assert re.search(r"accuracy\s+0\.\d+  \(95 %: 0\.\d+ … [01]\.?\d*\)", out)
    assert re.search(r"adamp\s+optimizer\s+paper-toolbox-adamp 0\.1\.0\s+[0-9a-f]{12}\s+https://", out)
    assert re.search(r"layers\.\d+\s+Gemm|layers\.\d+\s+FusedGemm", out)
    status, out, _ = toolbox(capsys, monkeypatch, "reproduce", file, "--out", str(tmp_path / "again"))
    assert status == 0
    assert "equal" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "-p", "adamw"], "a comparison takes two methods or more"),
        (["compare", "-p", "adamw", "-p", "adamw"], "a method is named twice"),
        (["compare", "-p", "adamw", "-p", "nothing"], "nothing"),
        (["report", "nowhere"], "nowhere is not a run folder"),
        (["inspect", "nowhere.onnx"], "nowhere.onnx is missing"),
        (["reproduce", "nowhere.onnx"], "nowhere.onnx is missing"),
        (["compress", "--resume"], "--resume needs --out FOLDER"),
        (["compress", "--resume", "--out", "nowhere"], "nothing to resume in nowhere"),
        (["compress", "run", "--resume", "--out", "out"], "give it no run and no options"),
    ],
)
def test_errors_are_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = toolbox(capsys, monkeypatch, *words)
    assert status == 1
    assert err.count("\n") == 1
    assert said in err
