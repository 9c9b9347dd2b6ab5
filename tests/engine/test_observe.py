"""Observers: what they are told, that it comes once, and that a run is what it is without them."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from paper_toolbox import Observer, Record, Run
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.comparison.comparison import methods_of
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.export import provenance
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.errors import Interrupted, NeedError, ParamError, PluginError
from paper_toolbox.files import sha256
from paper_toolbox.host import Host
from paper_toolbox.observers import Csv, Jsonl
from paper_toolbox.recipe import Recipe, assemble
from paper_toolbox.testing.observer import ObserverSuite, Series, by_figure, rows
from paper_toolbox.testing.two_processes import in_two_processes
from paper_toolbox.testing.users_run import stop_at, told

STEPS = 5  # of an epoch: 143 samples, 32 of them a batch


@pytest.fixture(autouse=True, scope="module")
def _undrawn() -> Iterator[None]:
    """The picture of a run takes longer than these runs, and is tried elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paper_toolbox.engine.train.learning_curve", lambda *_: None)
        yield


def recipe(*plugins: str, sets: tuple[str, ...] = (), **more: Any) -> Recipe:
    flags = {"data": "wine", "model": "mlp?hidden=8&depth=1", "epochs": 3, "batch_size": 32, "device": "cpu"}
    return assemble(Host(), None, plugins, sets, flags | more)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return train(recipe(), tmp_path_factory.mktemp("plain") / "run", Host(), show=Silent())


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def read_jsonl(folder: Path) -> Series:
    return by_figure([(row.pop("step"), row) for row in lines(folder / "steps.jsonl")])


def read_csv(folder: Path) -> Series:
    table = pd.read_csv(folder / "steps.csv")
    columns = {name: table[["step", name]].dropna() for name in table.columns if name != "step"}
    return {
        name: list(zip(found["step"].tolist(), found[name].tolist(), strict=True)) for name, found in columns.items()
    }


class TestJsonl(ObserverSuite):
    method = Jsonl()
    read = staticmethod(read_jsonl)


class TestCsv(ObserverSuite):
    method = Csv()
    read = staticmethod(read_csv)


def test_both_hold_what_happened_and_the_run_is_what_it_is_without(plain: Artifact, tmp_path: Path) -> None:
    chosen = recipe("jsonl", "csv", sets=("csv.every=3", f"jsonl.path={tmp_path}/there/rows.jsonl"))
    run = train(chosen, tmp_path / "run", Host(), show=Silent())
    assert sha256(run.weights) == sha256(plain.weights)
    assert told(run) == told(plain)
    *found, last = lines(tmp_path / "there" / "rows.jsonl")
    steps, ends = [row for row in found if "batch_loss" in row], [row for row in found if "train_loss" in row]
    assert ends == run.history()
    assert [row["step"] for row in steps] == list(range(1, 3 * STEPS + 1))
    assert [row["epoch"] for row in steps] == [1] * STEPS + [2] * STEPS + [3] * STEPS
    assert steps[0]["lr"] == 1e-3 > steps[-1]["lr"] > 0
    assert all(0 < row["seconds"] <= ends[-1]["seconds"] for row in steps)
    assert last == {
        "step": 3 * STEPS,
        **{f"kept_{name}": value for name, value in run.figures.items() if name != "step"},
    }
    table = pd.read_csv(run.folder / "steps.csv")
    assert table["step"][table["batch_loss"].notna()].tolist() == [3, 6, 9, 12, 15]
    assert table["accuracy"].dropna().tolist() == [row["accuracy"] for row in run.history()]


def test_a_file_of_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("mine")
    chosen = recipe("csv", sets=(f"csv.path={tmp_path}/rows.csv",))
    with pytest.raises(ParamError, match=r"rows\.csv exists already: name another file, or remove it"):
        train(chosen, tmp_path / "run", Host(), show=Silent())
    assert (tmp_path / "rows.csv").read_text() == "mine"
    assert not (tmp_path / "run").exists()


class KillAt(Silent):
    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, done: int, text: Callable[[], str]) -> None:
        if done == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", [2, 8])  # before the first checkpoint, and between two
def test_killed_and_resumed_each_row_is_there_once(step: int, plain: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "run"
    if (child := os.fork()) == 0:
        train(recipe("jsonl", "csv"), out, Host(), show=KillAt(step))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [row["step"] for row in lines(out / "steps.jsonl")][-1] == step
    with (out / "steps.jsonl").open("a") as file:
        file.write('{"step": 9, "ep')  # as a machine that loses power leaves it
    run = train(Recipe(), out, Host(), resume=True, show=Silent())
    assert sha256(run.weights) == sha256(plain.weights)
    for found in (read_jsonl(out), read_csv(out)):
        assert [at for at, _ in found["batch_loss"]] == list(range(1, 3 * STEPS + 1))
        assert [value for _, value in found["accuracy"]] == [row["accuracy"] for row in run.history()]


class Guest(Observer):
    """Does what ``way`` says, and notes what it sees."""

    way = "well"
    seen: list[tuple[int, dict[str, float]]]

    @contextmanager
    def watch(self, run: Run) -> Iterator[Record]:
        self.fail("opening")
        type(self).seen, type(self).run = [], run  # type: ignore[attr-defined]  # a test's notebook
        try:
            yield self.note
        except BaseException as error:
            type(self).end = error  # type: ignore[attr-defined]  # likewise
            if self.way != "swallows":
                raise
        finally:
            self.fail("closing")

    def note(self, step: int, figures: Any) -> None:
        self.seen.append((step, dict(figures)))
        if self.way == "draws":
            random.random(), np.random.rand(), torch.rand(3)
            figures.clear()
        if step == 7 and "batch_loss" in figures:
            self.fail("step")
        if step == 10 and "accuracy" in figures:
            self.fail("evaluation")
        if "kept_accuracy" in figures:
            self.fail("end")

    def fail(self, where: str) -> None:
        if self.way == where:
            raise OSError(28, "No space left")


def guest(way: str, monkeypatch: pytest.MonkeyPatch) -> type[Guest]:
    """``jsonl`` replaced by a guest that behaves in this ``way``."""
    cls = type("Guest", (Guest,), {"way": way, "end": None})
    monkeypatch.setattr("paper_toolbox.observers.Jsonl", cls)
    return cls


@pytest.mark.parametrize("way", ["draws", "swallows"])
def test_what_an_observer_does_stays_with_it(
    way: str, plain: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = guest(way, monkeypatch)
    chosen = recipe("jsonl", "csv")
    with pytest.raises(Interrupted):
        train(chosen, tmp_path / "run", Host(), show=stop_at(8))
    assert isinstance(seen.end, Interrupted)  # type: ignore[attr-defined]  # set by the guest
    run = train(Recipe(), tmp_path / "run", Host(), resume=True, show=Silent())
    assert sha256(run.weights) == sha256(plain.weights)
    assert (seen.run.resumed, seen.run.step) == (True, 8)  # type: ignore[attr-defined]  # likewise
    assert seen.run.settings["batch_size"] == 32  # type: ignore[attr-defined]  # likewise
    assert seen.run.settings["plugins"] == []  # type: ignore[attr-defined]  # likewise
    assert seen.seen[0][0] == 9
    assert len(read_csv(run.folder)["batch_loss"]) == 3 * STEPS  # the other one is told the same


SAID = r"^paper-toolbox-core 0\.1\.0: observer jsonl failed: OSError: .*No space left"


@pytest.mark.parametrize(("way", "where"), [("step", "epoch 2, step 7"), ("evaluation", "epoch 3, step 10")])
def test_one_that_fails_is_named_and_the_run_can_go_on(
    way: str, where: str, plain: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest(way, monkeypatch)
    out = tmp_path / "run"
    with pytest.raises(PluginError, match=rf"{SAID}; the run stopped in {where}; saved, continue with") as caught:
        train(recipe("jsonl", "csv"), out, Host(), show=Silent())
    assert caught.value.exit_status == 4
    monkeypatch.undo()
    run = train(Recipe(), out, Host(), resume=True, show=Silent())
    assert sha256(run.weights) == sha256(plain.weights)
    assert len(read_csv(out)["batch_loss"]) == 3 * STEPS
    assert len(read_csv(out)["accuracy"]) == 3


@pytest.mark.parametrize("way", ["opening", "end", "closing"])
def test_one_that_fails_before_or_after_the_run(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest(way, monkeypatch)
    out = tmp_path / "run"
    with pytest.raises(PluginError, match=SAID):
        train(recipe("jsonl"), out, Host(), show=Silent())
    assert out.exists() == (way != "opening")
    assert way == "opening" or Artifact.load(out).figures


def test_the_error_of_the_run_goes_before_that_of_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest("closing", monkeypatch)
    with pytest.raises(Interrupted):
        train(recipe("jsonl"), tmp_path / "run", Host(), show=stop_at(3))


def test_what_comes_out_does_not_tell_who_watched(tmp_path: Path) -> None:
    run = train(recipe("sgd", "csv"), tmp_path / "run", Host(), show=Silent())
    assert [each["name"] for each in run.summary["plugins"]] == ["sgd"]
    assert [entry for entry in json.loads(provenance(run)["recipe"])["plugins"] if "observer" in entry] == []
    assert run.recipe.plugins[-1].name == "csv"  # the folder does, so that it is resumed watched


def test_comparisons_and_compressions_are_not_watched(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="csv is an observer, which changes nothing"):
        methods_of(Host(), None, ["sgd", "adamw+csv"], [], {})
    found = methods_of(Host(), recipe("csv"), ["sgd", "adamw"], [], {})
    assert {choice.kind for each in found.values() for choice in each.plugins} == {"optimizer"}
    run = train(recipe(), tmp_path / "run", Host(), show=Silent())
    with pytest.raises(NeedError, match="csv is of kind observer; compress takes compressors"):
        compress(run, recipe("csv").plugins, tmp_path / "small", Host(), show=Silent())


@pytest.mark.slow
def test_of_two_processes_one_observes(tmp_path: Path) -> None:
    ends = in_two_processes(recipe("jsonl", "csv"), tmp_path / "run")
    assert ends[0]["weights"] == ends[1]["weights"]
    for found in (read_jsonl(tmp_path / "run"), read_csv(tmp_path / "run")):
        assert [step for step, _ in found["batch_loss"]] == list(range(1, found["accuracy"][-1][0] + 1))


def test_a_table_may_grow_a_column_at_any_time(tmp_path: Path) -> None:
    with Csv().watch(Run(tmp_path)) as record:
        for step, figures in rows(1, 4):
            record(step, figures | ({"late": 1} if step == 4 else {}))
    table = pd.read_csv(tmp_path / "steps.csv")
    assert table.columns.tolist() == ["step", "epoch", "batch_loss", "lr", "loss", "accuracy", "seconds", "late"]
    assert table["late"].notna().tolist() == [False] * 4 + [True]
