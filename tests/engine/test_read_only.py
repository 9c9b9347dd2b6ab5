"""Folders that may not be written: one line, exit status 1, and nothing changed; as root, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from killing import bound_by_permissions, in_a_child, said_by, toolbox
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.report import report
from paper_toolbox.engine.train import train
from paper_toolbox.host import Host
from paper_toolbox.recipe import assemble
from paper_toolbox.testing.users_run import stop_at

SMALL = ["--model", "mlp?hidden=8&depth=1", "--data", "wine", "--epochs", "2", "--device", "cpu"]
WRITING = [  # (words, what they say)
    (["train", "-p", "adamp", *SMALL, "--out", "new"], "error: cannot create new: Permission denied"),
    (["train", "--resume", "--out", "begun"], "error: cannot write in begun: Permission denied"),
    (["compress", "run", "-p", "svd"], "error: cannot create run-svd: Permission denied"),
    (["compress", "run", "-p", "svd", "--out", "new"], "error: cannot create new: Permission denied"),
    (["compare", "-p", "adamp", "-p", "sgd", *SMALL, "--out", "new"], "error: cannot create new: Permission denied"),
    (["report", "run"], "error: cannot write run/report.html: Permission denied"),
    (["attribute", "run", "-p", "integrated_gradients"], "error: cannot create run/attribution-integrated_gradients: "),
    (["export", "run"], "error: cannot write run/model.onnx: Permission denied"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and one that is not finished, in folders that only let themselves be read."""
    folder = tmp_path_factory.mktemp("place")
    flags = {"model": "mlp?hidden=8&depth=1", "data": "wine", "epochs": 2, "device": "cpu"}
    chosen = assemble(Host(), None, ["adamp"], [], flags)
    made = train(chosen, folder / "run", Host(), show=Silent())
    report(made, Host())  # and its children have imported all that it takes
    assert in_a_child(lambda: train(chosen, folder / "begun", Host(), show=stop_at(2))) == 1
    for each in (folder, *(inner for inner in folder.rglob("*") if inner.is_dir())):
        each.chmod(0o555)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("words", "line"), WRITING, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_what_may_not_be_written_is_said(
    words: list[str], line: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = {file: file.stat().st_mtime_ns for file in place.rglob("*")}
    status, said = said_by(lambda: (bound_by_permissions(), toolbox(*words)))
    assert status == 1, said
    assert said[-1].startswith(line), said
    assert [each for each in said if "error" in each or "Traceback" in each] == said[-1:]
    assert {file: file.stat().st_mtime_ns for file in place.rglob("*")} == before
