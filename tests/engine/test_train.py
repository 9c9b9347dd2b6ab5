"""Training: what a run leaves behind, resuming, refusing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox import artifact
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.data.open_data import open_data
from paper_toolbox.engine.loop import checkpoint
from paper_toolbox.engine.loop.fit import Fit
from paper_toolbox.engine.loop.restore import load_data, load_model
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.devices import accelerator_of
from paper_toolbox.engine.train import start, train
from paper_toolbox.errors import ArtifactError, GateMissed, Interrupted, ModelError, NeedError, ParamError, PluginError
from paper_toolbox.files import replacing, sha256
from paper_toolbox.host import Host
from paper_toolbox.kinds import Regimen
from paper_toolbox.kit.batch import forward
from paper_toolbox.recipe import Recipe, assemble


def recipe(*plugins: str, sets: tuple[str, ...] = (), **flags: Any) -> Recipe:
    settings = {"data": "digits", "model": "mlp?hidden=16", "epochs": 3, "device": "cpu"} | flags
    return assemble(Host(), None, plugins, sets, settings)


class StopAfter(Silent):
    """Presses Ctrl-C once ``step`` steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, done: int, text: Callable[[], str]) -> None:
        if done == self.step:
            signal.raise_signal(signal.SIGINT)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return artifact.read_weights(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return train(
        recipe("adamp", sets=("adamp.lr=0.01",)), tmp_path_factory.mktemp("runs") / "run", Host(), show=Silent()
    )


def test_a_run_leaves_what_the_design_says(trained: Artifact) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names == {
        "recipe.yaml", "model.safetensors", "structure.json", "metrics.jsonl", "summary.json", "checkpoint",
        "learning_curve.png",
    }  # fmt: skip
    assert trained.figures["accuracy"] > 0.8
    assert [row["epoch"] for row in trained.history()] == [1, 2, 3]
    assert trained.summary["plugins"][0]["package"] == "paper-toolbox-adamp"
    assert "width" not in (trained.recipe.training.model or "")
    assert "depth=" in (trained.recipe.training.model or "")  # defaults are written out


def test_the_weights_are_those_that_were_measured(trained: Artifact) -> None:
    from paper_toolbox.engine.data.open_data import Batches
    from paper_toolbox.engine.loop.evaluate import evaluate

    data = load_data(trained, Host())
    figures = evaluate(load_model(trained, Host()), Batches(data.validation, 256), data.task)
    assert figures["accuracy"] == trained.figures["accuracy"]


def test_the_same_recipe_gives_the_same_weights(trained: Artifact, tmp_path: Path) -> None:
    again = train(trained.recipe, tmp_path / "again", Host(), show=Silent())
    assert sha256(again.weights) == sha256(trained.weights)


@pytest.mark.parametrize(
    ("plugins", "sets", "stop"),
    [
        (("adamp", "max_sup"), ("schedule=cosine", "warmup=0.2"), 30),
        (("sam", "spectral_norm"), ("accumulate=2",), 7),
        (("forward_gradient",), (), 23),
        ((), ("clip_norm=0.5", "mlp.dropout=0.3"), 24),
        (("adamp", "weight_norm"), ("model=cnn?width=8&depth=2", "epochs=2"), 30),
    ],
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    plugins: tuple[str, ...], sets: tuple[str, ...], stop: int, tmp_path: Path
) -> None:
    flags = {} if any(text.startswith("model=") for text in sets) else {"model": "mlp?hidden=16", "epochs": 3}
    chosen = assemble(Host(), None, plugins, [*sets, "device=cpu", "keep=last"], flags)
    whole = train(chosen, tmp_path / "whole", Host(), show=Silent())
    with pytest.raises(Interrupted, match="--resume --out"):
        train(chosen, tmp_path / "cut", Host(), show=StopAfter(stop))
    with pytest.raises(ArtifactError, match="unfinished run"):
        Artifact.load(tmp_path / "cut")
    resumed = train(Recipe(), tmp_path / "cut", Host(), resume=True, show=Silent())
    assert sha256(resumed.weights) == sha256(whole.weights)
    left, right = (checkpoint.load(r.folder / "checkpoint" / "last.safetensors") for r in (whole, resumed))
    for state in (left, right):
        state["at"].pop("seconds")
        state["at"]["history"] = [{k: v for k, v in row.items() if k != "seconds"} for row in state["at"]["history"]]
        state["at"]["best"].pop("seconds")
    assert equal(left, right)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize(
    ("plugins", "flags", "line"),
    [
        (("adamp", "adamw"), {}, "adamp and adamw are both optimizers"),
        (("max_sup", "label_smoothing"), {}, "max_sup and label_smoothing are both criteria"),
        (("sinkd",), {}, "sinkd needs teacher_logits .* --teacher RUN"),
        (("integrated_gradients",), {}, "integrated_gradients is of kind attributor, not a part of training"),
        (("mse",), {}, "mse is a loss for regression; digits is classification"),
        (("sam",), {"precision": "fp16"}, "fp16"),
    ],
)
def test_methods_that_cannot_go_together_are_refused(
    plugins: tuple[str, ...], flags: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(NeedError, match=line):
        train(recipe(*plugins, **flags), tmp_path / "run", Host(), show=Silent())
    assert not (tmp_path / "run").exists()


def test_a_teacher_teaches(trained: Artifact, tmp_path: Path) -> None:
    student = train(
        recipe("sinkd", "adamp", sets=("adamp.lr=0.01",), teacher=str(trained.folder)),
        tmp_path / "student",
        Host(),
        show=Silent(),
    )
    assert student.figures["accuracy"] > 0.5


def test_an_existing_folder_is_refused(trained: Artifact) -> None:
    before = sha256(trained.weights)
    with pytest.raises(ArtifactError, match="already exists"):
        train(recipe(), trained.folder, Host(), show=Silent())
    assert sha256(trained.weights) == before


def test_a_regimen_trains_epoch_by_epoch(tmp_path: Path) -> None:
    class Echo(Regimen):
        def train(self, run: Any) -> None:
            for inputs, targets in run.batches:
                for _ in range(2):
                    run.optimizer.zero_grad()
                    run.backward(run.loss(forward(run.model, inputs), targets))
                    run.optimizer.step()

    chosen = recipe(epochs=2)
    data = open_data("digits")
    session = start(chosen, Host(), data, None, accelerator_of(chosen))
    session.regimen = Echo()
    figures = Fit(session, None, Silent()).run()
    assert figures["step"] == 2 * session.steps_per_epoch
    assert figures["train_loss"] < 2.0


def test_a_teacher_that_nobody_listens_to_is_refused(trained: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="no loss of this run learns from one"):
        train(recipe("adamp", teacher=str(trained.folder)), tmp_path / "run", Host(), show=Silent())


def test_the_seed_reaches_pruning_at_initialisation() -> None:
    masks = []
    for seed in (1, 1, 2):
        chosen = recipe("random_pruning", epochs=1, seed=seed)
        session = start(chosen, Host(), open_data("digits", seed=0), None, accelerator_of(chosen))
        masks.append(torch.cat([b.flatten() for b in session.model.buffers() if b.dtype == torch.bool]))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_diverging_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the loss became .* lower the learning rate"):
        train(recipe("sgd", sets=("sgd.lr=1e30",)), tmp_path / "run", Host(), show=Silent())
    assert not (tmp_path / "run").exists()  # nothing to resume, and nothing in the way of the next try


def test_regression_text_and_several_inputs_train(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    for data, model, metric in [
        ("diabetes", "mlp?hidden=8", "rmse"),
        (f"text:{tmp_path}/text.txt?length=16", "gpt?width=16&depth=1&heads=2", "accuracy"),
        ("data_of_two_inputs:open_data", "gpt?width=16&depth=1&heads=2", "accuracy"),
    ]:
        out = tmp_path / data.split(":")[0]
        run = train(recipe(data=data, model=model, epochs=1), out, Host(), show=Silent())
        assert metric in run.figures


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_weights_are_refused(damage: str, trained: Artifact, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content = content[: len(content) // 2] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="truncated or altered"):
        Artifact.load(folder)


@pytest.mark.parametrize("name", ["summary.json", "structure.json", "recipe.yaml"])
def test_a_newer_format_is_refused(name: str, trained: Artifact, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace('"format": 1', '"format": 2').replace("format: 1", "format: 2"))
    with pytest.raises((ArtifactError, ParamError), match="newer Paper Toolbox"):
        Artifact.load(folder)


def test_a_foreign_class_in_structure_json_is_never_imported(trained: Artifact, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    edit = {"edit": "replace", "path": "0", "class": "subprocess:Popen", "arguments": {"args": "true"}}
    (folder / "structure.json").write_text(json.dumps({"format": 1, "edits": [edit], "quantization": None}))
    with pytest.raises(ArtifactError, match="no installed plugin provides"):
        load_model(Artifact.load(folder), Host())


def test_a_failed_write_keeps_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def fill() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match="No space left"):
        fill()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A limit on file size stands in for the disk: the write of the weights fails half-way."""
    import resource

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    command = [sys.executable, "-m", "paper_toolbox_cli", "train", "--model", "mlp", "--epochs", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, preexec_fn=small, check=False
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "run").rglob("*.part"))
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_ctrl_c_on_the_command_line_exits_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "paper_toolbox_cli", "train", "--model", "mlp", "--epochs", "100000"]
    command += ["--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1/" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "continue with: toolbox train --resume" in rest.splitlines()[-1]
    assert (tmp_path / "run" / "checkpoint" / "last.safetensors").exists()


def test_a_checkpoint_holds_no_objects(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="state\\['optimizer'\\] is a object"):
        checkpoint.save(tmp_path / "x.safetensors", {"optimizer": object()})


def test_gate_missed_ends_with_3() -> None:
    assert GateMissed("x").exit_status == 3
