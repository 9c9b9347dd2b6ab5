"""Runs that are killed: whatever the moment, the run goes on and ends with the weights of one that was never killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from killing import KillAt, in_a_child
from paper_toolbox.artifact import Artifact, created
from paper_toolbox.engine.compare import compare
from paper_toolbox.engine.comparison.comparison import Comparison, methods_of, values_of
from paper_toolbox.engine.loop import keep
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.errors import ArtifactError
from paper_toolbox.files import locked, sha256, write_json
from paper_toolbox.host import Host
from paper_toolbox.recipe import Recipe, assemble

KILLS = 7  # of each run: 56 in all
MIXES = [  # every optimizer beside every precision; losses and normalizers in turn
    ("adamp", "max_sup", "weight_norm", "fp32"),
    ("adamp", "label_smoothing", "rms_norm", "bf16"),
    ("sam", "label_smoothing", "weight_norm", "fp32"),
    ("sam", "max_sup", "spectral_norm", "bf16"),
    ("lion", "norm_loss", "spectral_norm", "fp32"),
    ("lion", "max_sup", "rms_norm", "bf16"),
    ("forward_gradient", "label_smoothing", "weight_norm", "bf16"),
    ("ademamix", "norm_loss", "rms_norm", "fp32"),
]


def recipe(*plugins: str, **more: Any) -> Recipe:
    flags = {"data": "wine", "model": "mlp?hidden=8&depth=1", "epochs": 4, "batch_size": 32, "device": "cpu"}
    return assemble(Host(), None, plugins, (), flags | more)


def go_on(chosen: Recipe, out: Path, show: Callable[[], Silent]) -> Artifact:
    """Begin the run, or continue what is there of it."""
    begun = out.is_dir()
    return train(Recipe() if begun else chosen, out, Host(), resume=begun, show=show())


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES, ids="-".join)
def test_killed_at_any_moment_it_ends_with_the_same_weights(mix: tuple[str, ...], tmp_path: Path) -> None:
    *plugins, precision = mix
    chosen, draw = recipe(*plugins, precision=precision), random.Random("-".join(mix))
    whole = train(chosen, tmp_path / "whole", Host(), show=Silent())
    steps, killed, rounds = whole.history()[-1]["step"], 0, 0
    while killed < KILLS:  # a run that ends before it is killed is checked, and begun anew
        out, rounds = tmp_path / f"cut{rounds}", rounds + 1
        end = -signal.SIGKILL
        while end and killed < KILLS:
            step, seconds = draw.randint(1, steps), draw.uniform(0.02, 0.4)
            end = in_a_child(
                partial(go_on, chosen, out, partial(KillAt, *((step,) if killed % 2 else (None, seconds))))
            )
            assert end in (0, -signal.SIGKILL), "it neither ended nor was killed: it failed"
            killed += end != 0
        found = Artifact.load(out) if end == 0 else go_on(chosen, out, Silent)
        assert sha256(found.weights) == sha256(whole.weights)
        assert found.figures == whole.figures
        assert {file.name for file in out.iterdir()} == {file.name for file in whole.folder.iterdir()}


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on(tmp_path: Path) -> None:
    """Killed as its first results appear, and again."""
    flags = {"data": "wine", "model": "mlp?hidden=8&depth=1", "epochs": 2, "device": "cpu"}
    recipes = methods_of(Host(), None, ["adamw", "sgd"], [], flags)
    options = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    words = ["compare", "--plugin", "adamw", "--plugin", "sgd", "--seeds", "3", "--jobs", "1", *options]
    for count in (1, 4):
        out = tmp_path / "cut"
        resume = ["--resume"] if out.exists() else []
        command = [sys.executable, "-m", "paper_toolbox_cli", *words, "--out", str(out), *resume]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while started.poll() is None and len(list(out.glob("runs/*.json"))) < count:
            time.sleep(0.02)
        workers = psutil.Process(started.pid).children(recursive=True)
        started.kill()
        assert started.wait() == -signal.SIGKILL
        assert not psutil.wait_procs(workers, timeout=20)[1], "they end with it"
    whole, cut = (Comparison(dict(recipes), seeds=3) for _ in range(2))
    compare(whole, tmp_path / "whole", jobs=1, show=Silent())
    compare(cut, tmp_path / "cut", jobs=1, resume=True, show=Silent())
    assert values_of(cut) == values_of(whole)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    in_a_child(lambda: train(recipe("adamp"), out, Host(), show=KillAt(12)))
    with locked(out), pytest.raises(ArtifactError, match="is in use: another process works in it"):
        train(Recipe(), out, Host(), resume=True, show=Silent())
    assert train(Recipe(), out, Host(), resume=True, show=Silent()).figures


def test_a_comparison_in_use_is_refused(tmp_path: Path) -> None:
    flags = {"data": "wine", "model": "mlp?hidden=8&depth=1", "epochs": 2, "device": "cpu"}
    comparison = Comparison(dict(methods_of(Host(), None, ["adamw", "sgd"], [], flags)), seeds=2)
    write_json(tmp_path / "plan.json", comparison.plan())
    with locked(tmp_path), pytest.raises(ArtifactError, match="is in use: another process works in it"):
        compare(comparison, tmp_path, resume=True, show=Silent())


def test_of_two_that_begin_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    def begin(name: str, meanwhile: Callable[[], Any] = int) -> None:
        with created(tmp_path / "run") as new:
            (new / name).touch()
            meanwhile()

    with pytest.raises(ArtifactError, match=r"cannot create .*run: Directory not empty"):
        begin("mine", lambda: in_a_child(lambda: begin("theirs")))
    assert [file.name for file in tmp_path.rglob("*")] == ["run", "theirs"]


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    assert train(recipe("adamp", epochs=1), tmp_path, Host(), show=Silent()).folder == tmp_path


def test_a_changed_plugin_or_number_of_processes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    in_a_child(lambda: train(recipe("adamp"), out, Host(), show=KillAt(12)))
    known = keep.provenance

    def later(choices: Any) -> Any:
        return [{**each, "version": "9.9"} for each in known(choices)]

    monkeypatch.setattr(keep, "provenance", later)
    with pytest.raises(ArtifactError, match=r"paper-toolbox-adamp was 0\.1\.0 and is 9\.9; .*--accept-changes"):
        train(Recipe(), out, Host(), resume=True, show=Silent())
    assert train(Recipe(), out, Host(), resume=True, accept_changes=True, show=Silent()).figures
