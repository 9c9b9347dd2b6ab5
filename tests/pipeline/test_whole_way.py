"""Train, compress, export, run: the main job on real data, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.attribute import attribute
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.compression.before_after import Gates
from paper_toolbox.engine.export import export
from paper_toolbox.engine.loop.restore import load_data, load_model
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.run import run as run_model
from paper_toolbox.engine.train import train
from paper_toolbox.errors import ArtifactError, DataError, ExportError, GateMissed, NeedError, NothingChanged
from paper_toolbox.host import Host
from paper_toolbox.kit.batch import forward
from paper_toolbox.recipe import Choice, assemble


def trained(folder: Path, *plugins: str, **flags: Any) -> Artifact:
    settings = {"data": "digits", "model": "cnn?width=16&depth=2", "epochs": 5, "device": "cpu"} | flags
    sets = ["adamp.lr=0.003"] if "adamp" in plugins else []
    return train(assemble(Host(), None, plugins, sets, settings), folder, Host(), show=Silent())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return trained(tmp_path_factory.mktemp("runs") / "run", "adamp")


@pytest.fixture(scope="module")
def small(run: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    choices = [Choice("compressor", "structured_pruning", {"sparsity": 0.5}), Choice("compressor", "int8")]
    recipe = assemble(Host(), None, ["adamp"], ["adamp.lr=0.003"], {"epochs": 4})
    out = tmp_path_factory.mktemp("small") / "small"
    return compress(run, choices, out, Host(), finetune=recipe, show=Silent())


def test_the_compressed_model_is_smaller_and_as_good(small: Artifact) -> None:
    report = json.loads((small.folder / "compress.json").read_text())
    before, after = report["before"], report["after"]
    assert after["accuracy"] > before["accuracy"] - 0.05
    assert before["onnx_bytes"] > 3 * after["onnx_bytes"]
    assert before["parameters"] > 2 * after["parameters"]
    assert [step["name"] for step in report["steps"]] == ["structured_pruning", "int8"]
    assert report["steps"][0]["finetuned"] is not None
    assert report["steps"][1]["finetuned"] is None


def test_a_compressed_run_is_rebuilt_from_its_record(small: Artifact) -> None:
    model, data = load_model(small, Host()), load_data(small, Host())
    inputs, targets = data.validation.take(torch.arange(200))
    with torch.no_grad():
        accuracy = (forward(model, inputs).argmax(1) == targets).float().mean().item()
    assert accuracy > 0.85
    assert sum(p.numel() for p in model.parameters()) == small.summary["parameters"]


def test_the_exported_file_knows_what_it_is_and_runs_on_integers(small: Artifact, tmp_path: Path) -> None:
    report = export(small, tmp_path / "model.onnx", Host())
    assert report["precision"] == "int8"
    found = run_model(tmp_path / "model.onnx", Host(), provider="cpu", nodes=True)
    assert found["accuracy"] == pytest.approx(small.figures["accuracy"])
    assert found["nodes"]["operators"]["QLinearConv"] > 5
    assert "Conv" not in found["nodes"]["operators"]
    from paper_toolbox.engine.onnx.run import read_metadata

    metadata = {k: json.loads(v) for k, v in read_metadata(tmp_path / "model.onnx").items() if v[:1] in "{["}
    assert [p["name"] for p in metadata["plugins"]] == ["adamp", "structured_pruning", "int8"]
    assert metadata["preprocessing"]["standardize"]
    assert metadata["recipe"]["model"].startswith("cnn?")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_exports_equal_pytorch(precision: Any, run: Artifact, tmp_path: Path) -> None:
    report = export(run, tmp_path / "model.onnx", Host(), precision=precision)
    assert report["parity"]["gap"] <= {"fp32": 1e-4, "fp16": 1e-2}[precision]
    assert run_model(tmp_path / "model.onnx", Host(), provider="cpu")["accuracy"] == run.figures["accuracy"]


def test_a_file_runs_on_other_data_of_the_same_shape(run: Artifact, tmp_path: Path) -> None:
    export(run, tmp_path / "model.onnx", Host())
    with pytest.raises(ArtifactError, match="already exists"):
        export(run, tmp_path / "model.onnx", Host())
    with pytest.raises(ArtifactError, match=r"must end in \.onnx"):
        export(run, run.folder / "model.safetensors", Host())
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.savez(tmp_path / "new.npz", x=digits.images[:200, None].astype("float32"), y=digits.target[:200])
    found = run_model(tmp_path / "model.onnx", Host(), data=f"npz:{tmp_path}/new.npz", provider="cpu")
    assert found["samples"] == 200
    assert found["accuracy"] > 0.85  # the recorded standardisation was applied
    with pytest.raises((ExportError, DataError)):
        run_model(tmp_path / "model.onnx", Host(), data="wine", provider="cpu")


def test_a_missed_gate_keeps_its_report(run: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choices = [Choice("compressor", "magnitude_pruning", {"sparsity": 0.99})]
    with pytest.raises(GateMissed, match=r"drop .* is more than --max-drop 0.01"):
        compress(run, choices, out, Host(), gates=Gates(max_drop=0.01), show=Silent())
    assert json.loads((out / "compress.json").read_text())["missed"]
    assert Artifact.load(out).summary["accepted"] is False


def test_what_compress_refuses(run: Artifact, tmp_path: Path) -> None:
    host = Host()
    with pytest.raises(NeedError, match="adamp is of kind optimizer"):
        compress(run, [Choice("optimizer", "adamp")], tmp_path / "x", host)
    with pytest.raises(NothingChanged):
        compress(run, [Choice("compressor", "magnitude_pruning", {"sparsity": 0.0})], tmp_path / "x", host)
    (tmp_path / "kept.txt").touch()
    with pytest.raises(ArtifactError, match="already exists"):
        compress(run, [Choice("compressor", "int8")], tmp_path, host)
    assert {file.name for file in tmp_path.iterdir()} == {"kept.txt"}


def test_attribution_leaves_picture_arrays_and_figures(run: Artifact, tmp_path: Path) -> None:
    report = attribute(run, Choice("attributor", "integrated_gradients"), tmp_path / "why", Host(), samples=3)
    assert {p.name for p in (tmp_path / "why").iterdir()} == {"attribution.png", "attribution.npz", "attribution.json"}
    arrays = np.load(tmp_path / "why" / "attribution.npz")
    assert arrays["attributions"].shape[0] == 3
    assert np.abs(arrays["attributions"]).max() > 0
    assert all(isinstance(v, float | int | dict | None) for v in report["faithfulness"].values())


def test_tables_and_token_models_go_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    cases = [
        ("diabetes", "mlp?hidden=16"),
        (f"text:{tmp_path}/text.txt?length=16", "gpt?width=16&depth=1&heads=2"),
        ("data_of_two_inputs:open_data", "gpt?width=16&depth=1&heads=2"),
    ]
    for number, (data, model) in enumerate(cases):
        each = trained(tmp_path / f"run{number}", data=data, model=model, epochs=1)
        fewer = compress(each, [Choice("compressor", "int8")], tmp_path / f"small{number}", Host(), show=Silent())
        for stage in (each, fewer):
            export(stage, None, Host())
            found = run_model(stage.folder / "model.onnx", Host(), provider="cpu")
            metric = stage.task.metric
            assert found[metric] == pytest.approx(stage.figures[metric], rel=1e-3)


def test_a_cuda_run_without_a_gpu_is_refused(run: Artifact, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        return
    export(run, tmp_path / "model.onnx", Host())
    with pytest.raises(ExportError, match="--provider cuda"):
        run_model(tmp_path / "model.onnx", Host(), provider="cuda")
