"""A disk that is full from some moment on: one line, nothing half-written, and what was whole goes on.

The limit is the system's own (RLIMIT_FSIZE): from the chosen file on, every write of the process fails.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from killing import in_a_child, said_by, toolbox
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.report import report
from paper_toolbox.engine.train import train
from paper_toolbox.files import sha256
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, Recipe, assemble

SMALL = ["--model", "mlp?hidden=8&depth=1", "--data", "wine", "--epochs", "2", "--device", "cpu"]
TRAIN = ["train", "-p", "adamp", *SMALL]


def fill(folder: Path, count: int) -> None:
    """From the ``count``-th file on that this process writes in ``folder``, it can write nothing any more."""
    files: list[str] = []
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not args[2] or not args[2] & os.O_CREAT:
            return
        path, touched = str(args[0]), not args[2] & os.O_TRUNC  # as a file that is replaced begins
        if path.startswith(str(folder)) and not path.endswith(".lock") and (touched or path not in files):
            files.append(path)
            if len(files) >= count:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    sys.addaudithook(look)


def refused(folder: Path, count: int, *words: str | Path) -> bool:
    """Run a command whose disk is full from the ``count``-th file on; whether it fails, and then as it must."""
    status, said = said_by(lambda: (fill(folder, count), toolbox(*words)))
    if status == 0:
        return False
    assert status == 1, said
    (line,) = (each for each in said if each.startswith("error: "))
    assert "unexpected" not in line, said
    assert not any("Traceback" in each for each in said), said
    assert not list(folder.rglob("*.part")), said
    return True


def small(epochs: int) -> Recipe:
    flags = {"model": "mlp?hidden=8&depth=1", "data": "wine", "epochs": epochs, "device": "cpu"}
    return assemble(Host(), None, ["adamp"], [], flags)


def weights(run: Path) -> str:
    return sha256(run / "model.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in this process, so that all that is imported on the way is there for its children."""
    made = train(small(2), tmp_path_factory.mktemp("whole") / "run", Host(), show=Silent())
    report(made, Host())
    return made.folder


@pytest.mark.slow
def test_training(run: Path, tmp_path: Path) -> None:
    count, kept = 1, 0
    while refused(tmp_path / str(count), count, *TRAIN, "--out", out := tmp_path / str(count) / "run"):
        if out.exists():
            assert in_a_child(lambda out=out: train(Recipe(), out, Host(), resume=True, show=Silent())) == 0  # type: ignore[misc]  # bound at once
            assert weights(out) == weights(run)
            kept += 1
        assert [file.name for file in out.parent.iterdir()] in ([], ["run"])
        count += 1
    assert kept >= 6, "from the first checkpoint on, nothing is lost"
    assert weights(out) == weights(run)


@pytest.mark.slow
def test_compressing(run: Path, tmp_path: Path) -> None:
    """Begun anew or gone on with after each failure, the disk full a file later than before."""
    words = ["compress", run, "-p", "svd", "--finetune-epochs", "1"]
    whole = compress(Artifact.load(run), [Choice("compressor", "svd")], tmp_path / "whole", Host(), finetune=small(1))
    out, count, failed = tmp_path / "cut" / "out", 1, 0
    while refused(out.parent, count, *(["compress", "--resume"] if out.exists() else words), "--out", out):
        failed, count = failed + 1, count + 1
        assert count < 40, "it never ends well"
    assert failed >= 6
    assert weights(out) == weights(whole.folder)


def held(folder: Path) -> dict[Path, str]:
    return {file: sha256(file) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_what_is_written_into_a_run(run: Path) -> None:
    for words in (["report"], ["attribute", "-p", "integrated_gradients"], ["export"]):
        count, before = 1, held(run)
        while refused(run, count, words[0], run, *words[1:]):
            new = held(run).keys() - before.keys()
            assert new <= {run / "model.onnx"}, f"{words[0]} leaves nothing half-written: the model is whole by then"
            assert held(run)[run / "model.safetensors"] == before[run / "model.safetensors"]
            count += 1
        assert count > 2


@pytest.mark.slow
def test_comparing(tmp_path: Path) -> None:
    words = ["compare", "-p", "adamw", "-p", "sgd", "--seeds", "2", "--jobs", "1", *SMALL, "--out", tmp_path / "out"]
    assert refused(tmp_path, 1, *words)
    assert not any(tmp_path.iterdir())
    assert refused(tmp_path, 3, *words), "it has one result of four"
    assert refused(tmp_path, 4, *words, "--resume"), "it has all of them"
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 4
