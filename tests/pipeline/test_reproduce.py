"""An exported file tells how it was made and how it runs; from that alone it is made again, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.export import export
from paper_toolbox.engine.inspect import inspect
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.reproduce import reproduce
from paper_toolbox.engine.train import train
from paper_toolbox.errors import ArtifactError, ExportError, GateMissed, UnknownMethod
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, Recipe, assemble


def recipe(epochs: int = 2) -> Recipe:
    flags = {"data": "digits", "model": "cnn?width=4&depth=1", "epochs": epochs, "device": "cpu"}
    return assemble(Host(), None, ["adamp"], ["adamp.lr=0.01"], flags)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    """A run that was compressed by two commands, one of them with fine-tuning; and its file."""
    folder = tmp_path_factory.mktemp("made")
    run = train(recipe(), folder / "run", Host(), show=Silent())
    pruned = [Choice("compressor", "structured_pruning")]
    small = compress(run, pruned, folder / "small", Host(), finetune=recipe(1), show=Silent())
    whole = compress(small, [Choice("compressor", "int8")], folder / "int8", Host(), show=Silent())
    export(whole, None, Host())
    return whole, whole.folder / "model.onnx"


def told_otherwise(path: Path, out: Path, key: str, change: Any) -> Path:
    """The file with another record."""
    model = onnx.load(str(path))
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = json.dumps(change(json.loads(entry.value)))
    onnx.save(model, str(out))
    return out


@pytest.mark.slow
def test_a_file_is_inspected(made: tuple[Artifact, Path]) -> None:
    run, path = made
    found = inspect(path, "cpu")
    assert [each["name"] for each in found["told"]["chain"]] == ["structured_pruning", "int8"]
    assert [each["command"] for each in found["told"]["chain"]] == [1, 2]
    assert found["told"]["figures"] == run.figures
    assert found["told"]["interval"]["low"] < run.figures["accuracy"] < found["told"]["interval"]["high"]
    assert all(len(each["code_sha256"]) == 64 for each in found["told"]["plugins"])
    assert found["integers"]["integer"]
    assert found["integers"]["unfused"] == []
    assert found["export"]["parity"]
    assert found["counts"]["providers"] == {"CPUExecutionProvider": len(found["nodes"])}
    assert all(node["us"] >= 0 and node["operator"] for node in found["nodes"])
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_a_run_is_reproduced_bit_for_bit(made: tuple[Artifact, Path], tmp_path: Path) -> None:
    run, path = made
    report = reproduce(path, tmp_path / "again", Host(), show=Silent())
    assert report["equal"]
    assert report["weights_sha256"]["again"] == run.summary["weights_sha256"]
    assert report["figures"]["again"] == run.figures
    assert report["changes"] == []
    with pytest.raises(ArtifactError, match="already exists"):
        reproduce(path, tmp_path / "again", Host())


@pytest.mark.slow
def test_another_run_is_told_from_it(made: tuple[Artifact, Path], tmp_path: Path) -> None:
    other = told_otherwise(made[1], tmp_path / "other.onnx", "recipe", lambda r: r | {"seed": 1})
    other = told_otherwise(other, other, "plugins", lambda each: [each[0] | {"code_sha256": "0"}, *each[1:]])
    said = r"bit for bit \(accuracy 0\.\d+ and 0\.\d+\): paper-toolbox-adamp 0\.1\.0 was changed since \(its code is"
    with pytest.raises(GateMissed, match=said) as missed:
        reproduce(other, tmp_path / "again", Host(), show=Silent())
    assert missed.value.report["weights_sha256"]["file"] != missed.value.report["weights_sha256"]["again"]


@pytest.mark.slow
def test_what_cannot_be_reproduced_says_why(made: tuple[Artifact, Path], tmp_path: Path) -> None:
    model = onnx.load(str(made[1]))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "silent.onnx"))
    with pytest.raises(ExportError, match="does not say how it was made"):
        reproduce(tmp_path / "silent.onnx", tmp_path / "again", Host())
    assert inspect(tmp_path / "silent.onnx", "cpu")["told"] == {}
    unknown = told_otherwise(
        made[1], tmp_path / "unknown.onnx", "plugins", lambda plugins: [plugins[0] | {"name": "no_such_method"}]
    )
    with pytest.raises(UnknownMethod, match="no_such_method"):
        reproduce(unknown, tmp_path / "again", Host())
    assert not (tmp_path / "again").exists()
