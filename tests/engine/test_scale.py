"""Several processes: copies of a model or parts of one, how they stop, and what they say."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox import catalog
from paper_toolbox.artifact import Artifact, read_weights
from paper_toolbox.engine.compatibility.case import Case
from paper_toolbox.engine.loop.shards import blocks, sharing
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.methods import gather
from paper_toolbox.engine.setup.models import open_model
from paper_toolbox.engine.train import train
from paper_toolbox.host import Host
from paper_toolbox.kit.rule import Rule
from paper_toolbox.recipe import Recipe, assemble
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing.two_processes import in_both, in_two_processes

ROOT = Path(__file__).parents[2]
TASK = Task("classification", (TensorSpec("image", (1, 8, 8), "float32", None),), 10, tuple("0123456789"))
SMALL = ["data=wine", "model=mlp?hidden=8&depth=2", "epochs=2", "device=cpu", "keep=last", "batch_size=32"]


def recipe(*plugins: str, sets: Any = ()) -> Recipe:
    return assemble(Host(), None, plugins, [*SMALL, *sets], {})


TRAIN = ["--standalone", "--nproc_per_node", "2", "-m", "paper_toolbox_cli", "train"]


def launched(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    """``torchrun WORDS``."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_alike(one: Path, other: Path) -> None:
    weights, others = read_weights(one), read_weights(other)
    assert weights.keys() == others.keys()
    for name, x in weights.items():
        torch.testing.assert_close(others[name], x, rtol=1e-4, atol=1e-5)


def findings(name: str, *sets: str, world: int = 2) -> list[str]:
    """What parallel=fsdp has against a run with the method ``name``."""
    chosen = recipe(name, sets=["parallel=fsdp", *sets])
    methods = gather(chosen, Host(), TASK, teacher=False)
    return [finding.line for finding in sharing(Case(chosen, methods, TASK, world))]


def test_what_does_not_declare_itself_right_on_shards_is_refused() -> None:
    """Flat rules alone: several of their tensors may come joined as one, so they cannot look at more than entries."""
    names = [card.name for card in catalog.cards() if card.kind == "optimizer"]
    for name in names:
        method, said = Host().method(name, "optimizer"), findings(name)
        assert (issubclass(method, Rule) and method.view == "flat") == (not said), name
        assert all(line.startswith(f"parallel=fsdp: {name} looks at") for line in said[:1]), said
    assert len(names) > len([name for name in names if not findings(name)]) >= 11
    assert findings("adamp", world=1) == []


@pytest.mark.parametrize(
    ("name", "sets", "said"),
    [
        ("norm_loss", [], "norm_loss looks at the weights"),
        ("adamw", ["precision=fp16"], "fp32 or bf16, not in fp16"),
        ("adamw", ["optimizer_state=8bit"], "leave out weights, optimizer_state and offload_state"),
        ("one_cycle", ["one_cycle.base=muon"], "muon looks at whole tensors"),
    ],
)
def test_what_shards_cannot_serve_is_refused(name: str, sets: list[str], said: str) -> None:
    assert said in findings(name, *sets)[-1]


def test_repeated_blocks_are_found() -> None:
    def found(source: str, task: Task = TASK) -> list[str]:
        model = open_model(source, task, Host())
        names = {module: name for name, module in model.named_modules()}
        return [names[block] for block in blocks(model)]

    text = Task("tokens", (TensorSpec("ids", (16,), "int64", 20),), 20)
    assert found("vit?depth=3") == ["blocks.0", "blocks.1", "blocks.2"]
    assert found("gpt?depth=2", text) == ["blocks.0", "blocks.1"]
    assert found("cnn") == ["stages.0", "stages.1", "stages.2"]
    assert found("mlp") == []


@pytest.mark.slow
def test_rules_step_on_shards_as_on_whole_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    in_both(importlib.import_module("on_shards").main, tmp_path / "work")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugins", "sets"),
    [
        ([], ["clip_norm=0.5"]),
        (["adamw", "weight_norm"], ["accumulate=2"]),
        (["lion"], ["data=digits", "model=cnn?width=4&depth=2", "epochs=1", "batch_size=128"]),
        (["sgd"], ["data=text:TEXT?length=8", "model=gpt?width=8&depth=2&heads=2", "epochs=1", "batch_size=16"]),
    ],
)
def test_a_model_in_parts_trains_as_a_whole_one(plugins: list[str], sets: list[str], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("the quick brown fox jumps over the lazy dog. " * 30, "utf-8")
    chosen = recipe(*plugins, sets=[*(s.replace("TEXT", str(tmp_path / "text")) for s in sets), "parallel=fsdp"])
    ends = in_two_processes(chosen, tmp_path / "two")
    assert "weights" in ends[0], ends[0]
    assert ends[0] == ends[1]
    one = train(chosen, tmp_path / "one", Host(), show=Silent())
    if "cnn" not in str(sets):  # BatchNorm sees the samples of its own process
        assert_alike(one.folder, tmp_path / "two")
    assert Artifact.load(tmp_path / "two").structure == one.structure


@pytest.mark.slow
def test_a_parameter_left_out_now_and_then_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    sets = ["model=models_for_two:branching", "epochs=1"]
    ends = in_two_processes(recipe(sets=sets), tmp_path / "a")
    assert all("sometimes.weight, sometimes.bias: a batch leaves" in end.get("refused", "") for end in ends), ends
    ends = in_two_processes(recipe("adamw", sets=[*sets, "parallel=ddp_unused"]), tmp_path / "b")
    assert "weights" in ends[0], ends[0]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    sets = ["epochs=40", "parallel=fsdp", "model=mlp?hidden=8&depth=1"]
    words = [word for each in (*SMALL, *sets) for word in ("--set", each)]
    with launched(tmp_path, [*TRAIN, "--plugin", "adamw", *words, "--out", "cut"]) as process:
        for line in process.stderr or ():
            if "epoch 2/" in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read() if process.stderr else ""
    assert process.returncode != 0
    assert len(re.findall(r"interrupted in epoch \d+, step \d+; saved", rest)) == 1, rest
    chosen = recipe("adamw", sets=sets)
    resumed = train(Recipe(), tmp_path / "cut", Host(), resume=True, accept_changes=True, show=Silent())
    assert_alike(train(chosen, tmp_path / "whole", Host(), show=Silent()).folder, resumed.folder)


@pytest.mark.slow
def test_one_process_that_fails_ends_all_and_is_told_once(tmp_path: Path) -> None:
    words = [word for s in (*SMALL, "model=models_for_two:failing") for word in ("--set", s)]
    with launched(tmp_path, [*TRAIN, *words, "--out", "run"]) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert errors == ["error: process 1: /scratch: No space left on device"], said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_of_the_document_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scale.md").read_text("utf-8")
    command = shlex.split(re.search(r"<!-- run -->\n```\n(.*)\n```", text)[1])  # type: ignore[index]  # or it fails here
    with launched(tmp_path, command[1:]) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert Artifact.load(tmp_path / "runs" / "two").history()[-1]["epoch"] == 2
