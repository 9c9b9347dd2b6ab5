"""A source of its own to validate on: what is fitted, what is refused, and the way of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.data.open_data import Data, open_data
from paper_toolbox.engine.export import export
from paper_toolbox.engine.loop.restore import load_data
from paper_toolbox.engine.report import report
from paper_toolbox.engine.reproduce import reproduce
from paper_toolbox.engine.run import run as run_onnx
from paper_toolbox.engine.train import train
from paper_toolbox.errors import DataError
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, assemble


def made(path: Path, shift: float, rows: int, columns: int = 3) -> str:
    generator = np.random.default_rng(rows)
    x = generator.normal(shift, 1.0, (rows, columns))
    np.savez(path, x=x, y=(x[:, 0] > shift).astype(int), classes=np.array(["low", "high"]))
    return f"npz:{path}"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return made(tmp_path / "train.npz", 5.0, 60), made(tmp_path / "held.npz", 6.0, 21)


def inputs(data: Data, part: str) -> torch.Tensor:
    chosen = getattr(data, part)
    taken, _ = chosen.take(torch.arange(len(chosen)))
    assert isinstance(taken, torch.Tensor)
    return taken


def test_only_the_training_data_is_fitted(pair: tuple[str, str]) -> None:
    data = open_data(pair[0], validation_data=pair[1])
    assert (len(data.train), len(data.validation)) == (60, 21)
    torch.testing.assert_close(inputs(data, "train").mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert inputs(data, "validation").mean() > 0.7
    again = open_data(pair[0], validation_data=pair[1], preprocessing=data.preprocessing)
    assert torch.equal(inputs(data, "validation"), inputs(again, "validation"))


def test_refuses_what_does_not_fit(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wide\.npz has x \(4,\) float32 .*; the training data has x \(3,\)"):
        open_data(pair[0], validation_data=made(tmp_path / "wide.npz", 0.0, 9, columns=4))
    with pytest.raises(DataError, match="does not exist"):
        open_data(pair[0], validation_data="npz:absent.npz")
    np.savez(tmp_path / "nan.npz", x=np.full((9, 3), np.nan), y=np.zeros(9, int))
    with pytest.raises(DataError, match=r"nan\.npz: x: sample 0 at \[0\] is nan"):
        open_data(pair[0], validation_data=f"npz:{tmp_path / 'nan.npz'}")


@pytest.mark.slow
def test_the_whole_way_with_validation_data(pair: tuple[str, str], tmp_path: Path) -> None:
    """Trained, compressed, reported, exported, run and reproduced: always on the same 21 samples."""
    host = Host()
    flags = {"data": pair[0], "validation_data": pair[1], "model": "mlp?hidden=8", "epochs": 3}
    recipe = assemble(host, None, ["adamp"], ["adamp.lr=0.05"], flags)
    run = train(recipe, tmp_path / "run", host)
    assert len(load_data(Artifact.load(run.folder), host).validation) == 21
    choice = [Choice("compressor", "magnitude_pruning", {"sparsity": 0.5})]
    finetune = assemble(host, None, ["adamp"], [], {"epochs": 1})
    smaller = compress(run, choice, tmp_path / "smaller", host, finetune=finetune)
    assert smaller.recipe.training.validation_data == pair[1]
    assert "accuracy" in report(run, host)
    export(run, None, host)
    file = run.folder / "model.onnx"
    assert run_onnx(file, host)["samples"] == 21
    assert run_onnx(file, host)["accuracy"] == pytest.approx(run.figures["accuracy"])
    assert reproduce(file, tmp_path / "again", host)["equal"]
