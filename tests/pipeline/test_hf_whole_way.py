"""Models of transformers go the whole way: trained, resumed, made smaller, exported, run, explained, made again."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.attribute import attribute
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.data.parts import Batches
from paper_toolbox.engine.loop.evaluate import evaluate
from paper_toolbox.engine.loop.restore import load_data, load_model
from paper_toolbox.engine.onnx.graph import export_onnx
from paper_toolbox.engine.onnx.session import open_session, options
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.reproduce import reproduce
from paper_toolbox.engine.setup.models import open_model
from paper_toolbox.engine.train import train
from paper_toolbox.errors import Interrupted, ModelError, NeedError, NothingChanged
from paper_toolbox.files import sha256
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, Recipe, assemble
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing import users_run
from paper_toolbox.testing.model import inputs_of
from small_hf import config_of, saved

pytestmark = pytest.mark.slow
WORDS = "the quick brown fox jumps over the lazy dog. " * 30
#: data, optimizer and what it is told, epochs
CASES: dict[str, tuple[str, str, list[str], int]] = {
    "bert": ("data_of_two_inputs:open_data", "adamp", ["adamp.lr=0.01"], 3),
    "vit": ("digits", "sam", ["sam.base=adamw?lr=0.01"], 1),
    "gpt2": ("text", "muon", [], 3),
    "llama": ("text", "adamw", ["adamw.lr=0.01"], 3),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf")
    (folder / "text.txt").write_text(WORDS, "utf-8")
    return folder


def recipe(home: Path, name: str, **more: Any) -> Recipe:
    data, optimizer, sets, epochs = CASES[name]
    folder = home / name if (home / name).exists() else saved(home / name, name)
    data = f"text:{home}/text.txt?length=16" if data == "text" else data
    flags = {"data": data, "model": f"hf:{folder}?pretrained=false", "epochs": epochs, "batch_size": 32}
    return assemble(Host(), None, [optimizer], sets, flags | {"device": "cpu"} | more)


@pytest.fixture(scope="module")
def runs(home: Path) -> Callable[[str], Artifact]:
    """The run of each case, trained when it is first asked for."""

    @functools.cache
    def run(name: str) -> Artifact:
        return train(recipe(home, name), home / f"{name}-run", Host(), show=Silent())

    return run


Runs = Callable[[str], Artifact]


@pytest.mark.parametrize("name", CASES)
def test_it_learns_and_resumes_exactly(name: str, runs: Runs, home: Path, tmp_path: Path) -> None:
    run = runs(name)
    assert users_run.told(run)[-1]["train_loss"] < math.log(run.task.outputs)  # what guessing costs
    step = run.history()[0]["step"] // 2
    with pytest.raises(Interrupted):
        train(recipe(home, name), tmp_path / "cut", Host(), show=users_run.stop_at(step))
    resumed = train(Recipe(), tmp_path / "cut", Host(), resume=True, show=Silent())
    assert sha256(resumed.weights) == sha256(run.weights)
    assert users_run.told(resumed) == users_run.told(run)


CHAINS = [
    ("vit", ["structured_pruning", "int8"]),
    ("gpt2", ["svd", "magnitude_pruning"]),
    ("llama", ["structured_pruning", "fwsvd"]),
]


@pytest.mark.parametrize(("name", "chain"), CHAINS)
def test_it_becomes_smaller_and_is_rebuilt(name: str, chain: list[str], runs: Runs, home: Path, tmp_path: Path) -> None:
    """Both files, before and after, are checked against PyTorch on the way."""
    again = recipe(home, name, epochs=1)
    choices = [Choice("compressor", compressor) for compressor in chain]
    small = compress(runs(name), choices, tmp_path / "small", Host(), finetune=again, show=Silent())
    report = json.loads((small.folder / "compress.json").read_text("utf-8"))
    assert report["after"]["nonzero"] < 0.9 * report["before"]["nonzero"]
    assert report["after"]["macs"] <= report["before"]["macs"]
    model, data = load_model(small, Host()), load_data(small, Host())
    if small.structure["quantization"] is None:
        assert evaluate(model, Batches(data.validation, 256), small.task) == small.figures


def test_text_hidden_in_front_is_exported(home: Path, tmp_path: Path) -> None:
    """A hidden token that sees nobody: fused attention and its exported form give it different answers."""
    ids, mask = TensorSpec("ids", (12,), "int64", 9), TensorSpec("mask", (12,), "int64")
    task = Task("tokens", (ids, mask), 9, layout="dict")
    model = open_model(f"hf:{saved(home / 'masked', 'gpt2')}?pretrained=false", task, Host())
    batches = [(inputs_of(task, 4), torch.zeros(4, 12, dtype=torch.int64))]
    assert export_onnx(model, task, batches, tmp_path / "model.onnx")["parity"]["gap"] <= 1e-4


def test_a_picture_is_explained_and_ids_are_refused(runs: Runs, tmp_path: Path) -> None:
    choice = Choice("attributor", "integrated_gradients", {"steps": 8})
    attribute(runs("vit"), choice, tmp_path / "why", Host(), samples=2)
    assert np.abs(np.load(tmp_path / "why" / "attribution.npz")["attributions"]).max() > 0
    for name, message in (("gpt2", "token ids have no neighbours"), ("bert", "explains models of one input")):
        with pytest.raises(NeedError, match=message):
            attribute(runs(name), choice, tmp_path / name, Host(), samples=2)


def test_one_saved_is_trained_on_and_made_again_while_its_files_are_the_same(home: Path, tmp_path: Path) -> None:
    import transformers

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        transformers.BertForMaskedLM(config_of("bert")).save_pretrained(tmp_path / "hf")

    save(0)
    run = train(recipe(home, "bert", model=f"hf:{tmp_path}/hf", epochs=1), tmp_path / "run", Host(), show=Silent())
    users_run.check_export(run, tmp_path / "model.onnx")
    _check_mask(run, tmp_path / "model.onnx")
    assert reproduce(tmp_path / "model.onnx", tmp_path / "again", Host(), show=Silent())["equal"]
    (tmp_path / "hf" / "model.safetensors").unlink()
    load_model(run, Host())  # a run holds its own weights
    save(1)
    with pytest.raises(ModelError, match="is not what it was: its weights had weights_sha256="):
        reproduce(tmp_path / "model.onnx", tmp_path / "once more", Host(), show=Silent())


def _check_mask(run: Artifact, file: Path) -> None:
    """What the mask hides does not count in the file either."""
    inputs: Any = load_data(run, Host()).validation.take(torch.arange(9))[0]
    fed = {name: x.numpy() for name, x in inputs.items()}
    hidden = fed["attention_mask"] == 0
    assert hidden.any()
    others = fed | {"input_ids": np.where(hidden, (fed["input_ids"] + 7) % 20, fed["input_ids"])}
    session = open_session(file, "cpu", options())
    assert np.array_equal(session.run(None, others)[0], session.run(None, fed)[0])


MIXES = [
    ("bert", ["rms_norm", "norm_loss", "noneuclid_trust_region"]),
    ("bert", ["weight_norm", "multi_similarity"]),
    ("vit", ["spectral_norm", "layer_norm"]),
    ("gpt2", ["weight_norm", "rms_norm"]),
]


@pytest.mark.parametrize(("name", "plugins"), MIXES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_it_is_a_model_like_others_to_normalizers_and_losses(
    name: str, plugins: list[str], home: Path, tmp_path: Path
) -> None:
    chosen = recipe(home, name, epochs=1)
    more = assemble(Host(), None, plugins, ["layer_norm.eps=1e-6"] if "layer_norm" in plugins else [], {}).plugins
    kept = [c for c in chosen.plugins if c.kind not in {m.kind for m in more}]
    run = train(Recipe(training=chosen.training, plugins=(*kept, *more)), tmp_path / "run", Host(), show=Silent())
    model, data = load_model(run, Host()), load_data(run, Host())
    assert run.figures | evaluate(model, Batches(data.validation, 256), run.task) == run.figures


def test_norm_layers_of_its_own_kind_are_left_alone(home: Path, tmp_path: Path) -> None:
    chosen = recipe(home, "llama", epochs=1)
    more = assemble(Host(), None, ["rms_norm"], [], {}).plugins
    with pytest.raises(NothingChanged, match="rms_norm found 0 layers: it looks for norm layers of torch"):
        train(Recipe(training=chosen.training, plugins=(*chosen.plugins, *more)), tmp_path / "run", Host())
