"""The built-in architectures, and opening models from every source."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from paper_toolbox.engine.setup.models import example, open_model
from paper_toolbox.errors import ModelError, ParamError, UnknownMethod
from paper_toolbox.hookspecs import hookimpl
from paper_toolbox.host import Host
from paper_toolbox.kit.batch import forward
from paper_toolbox.kit.capture import last_linear
from paper_toolbox.models import Cnn, Gpt, Mlp, Vit
from paper_toolbox.models.shapes import default_model
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing.model import (
    IMAGES,
    LARGE_IMAGES,
    NUMBERS,
    PAIR,
    SEQUENCES,
    SEVERAL,
    TABLE,
    TEXT,
    ModelSuite,
    inputs_of,
)
from torch import Tensor, fx, nn


class TestMlp(ModelSuite):
    method = Mlp(hidden=16)
    tasks = (IMAGES, TABLE, NUMBERS, SEVERAL, PAIR)


class TestCnn(ModelSuite):
    method = Cnn(width=8)
    tasks = (IMAGES, LARGE_IMAGES)


class TestVit(ModelSuite):
    method = Vit(width=16, depth=2, heads=2)
    recipe: ClassVar = {"epochs": 6, "batch_size": 16}
    tasks = (IMAGES, LARGE_IMAGES)


class TestGpt(ModelSuite):
    method = Gpt(width=16, depth=2, heads=2)
    tasks = (TEXT, SEQUENCES)


ALL = [(suite.method, task) for suite in (TestMlp, TestCnn, TestVit, TestGpt) for task in suite.tasks]
ONE_TENSOR = [(method, task) for method, task in ALL if task.layout == "tensor"]


@pytest.mark.parametrize(("method", "task"), ALL, ids=lambda x: type(x).__name__)
def test_the_classifier_is_the_last_linear_layer(method: Any, task: Task) -> None:
    assert last_linear(method.build(task)).out_features == task.outputs


@pytest.mark.parametrize(("method", "task"), ONE_TENSOR, ids=lambda x: type(x).__name__)
def test_one_tensor_models_can_be_traced(method: Any, task: Task) -> None:
    model = method.build(task).eval()
    traced = fx.symbolic_trace(model)
    inputs = inputs_of(task, 3)
    torch.testing.assert_close(traced(inputs), model(inputs))


def test_gpt_does_not_look_ahead() -> None:
    model = Gpt(width=16, depth=2, heads=2).build(TEXT).eval()
    ids = inputs_of(TEXT, 2)
    assert isinstance(ids, Tensor)
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 9
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_gpt_ignores_what_the_mask_hides() -> None:
    model = Gpt(width=16, depth=2, heads=2).build(SEQUENCES).eval()
    ids = torch.randint(9, (2, 12))
    mask = (torch.arange(12) < 5).long().expand(2, 12)
    changed = torch.where(mask == 1, ids, (ids + 1) % 9)
    torch.testing.assert_close(model(ids=ids, mask=mask), model(ids=changed, mask=mask))
    assert not torch.allclose(model(ids=ids, mask=mask), model(ids=changed, mask=torch.ones_like(mask)))
    torch.testing.assert_close(
        model(ids=changed, mask=mask.flip(1)), model(ids=_start_changed(changed), mask=mask.flip(1))
    )


def _start_changed(ids: Tensor) -> Tensor:
    """Other ids where the flipped mask hides: hidden at the front, they come before what is read."""
    return torch.where(torch.arange(12) < 7, (ids + 1) % 9, ids)


def test_every_task_has_a_default() -> None:
    named = {"cnn": IMAGES, "mlp": TABLE, "gpt": TEXT}
    assert {default_model(task): task for task in named.values()} == named
    assert default_model(SEQUENCES) == "gpt"
    assert default_model(SEVERAL) == "mlp"
    for task in (IMAGES, LARGE_IMAGES, TABLE, NUMBERS, SEVERAL, PAIR, TEXT, SEQUENCES):
        open_model(default_model(task), task, Host())


WRONG = [
    (Cnn(), TABLE, "cnn needs one image"),
    (Cnn(), TEXT, "use gpt"),
    (Vit(patch=3), IMAGES, r"patch = 3 does not divide an image of 8 × 8; choose from \[1, 2, 4, 8\]"),
    (Vit(width=10, heads=4), IMAGES, "width = 10 must be a multiple of heads = 4"),
    (Mlp(), TEXT, "mlp needs numbers; .* use gpt"),
    (Gpt(), IMAGES, "gpt needs one input of token ids .* use cnn"),
    (Gpt(heads=3), TEXT, "multiple of heads"),
]


@pytest.mark.parametrize(("method", "task", "message"), WRONG)
def test_a_task_out_of_reach_is_refused_with_a_model_that_fits(method: Any, task: Task, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        method.build(task)


def test_options_stand_in_the_source_or_beside_it() -> None:
    def stem(model: nn.Module) -> int:
        return int(next(model.parameters()).shape[0])

    assert stem(open_model("cnn?width=12", IMAGES, Host())) == 12
    assert stem(open_model("cnn?width=12", IMAGES, Host(), {"width": "6"})) == 6
    with pytest.raises(ParamError, match="cnn has no field 'widht'; did you mean width"):
        open_model("cnn?widht=12", IMAGES, Host())


def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_model.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def fits(task):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs))\n"
        "def fixed():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))\n"
        "def wide():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
        "def narrow():\n    return nn.Sequential(nn.Flatten(), nn.Linear(63, 4))\n"
        "def nothing():\n    return None\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("fits", "fixed"):
        assert forward(open_model(f"own_model:{name}", IMAGES, Host()), example(IMAGES)).shape == (2, 4)
    wrong = {
        "wide": r"gives outputs of shape \(2, 7\); this classification task needs \(2, 4\)",
        "narrow": r"does not take this data's inputs \(image \(1, 8, 8\) float32\)",
        "nothing": "gave NoneType",
        "absent": "has no function 'absent'",
    }
    for name, message in wrong.items():
        with pytest.raises(ModelError, match=message):
            open_model(f"own_model:{name}", IMAGES, Host())


def test_a_guest_opens_its_own_scheme() -> None:
    class Opener:
        @hookimpl
        def open_model(self, source: str, task: Task) -> nn.Module | None:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs)) if source == "attic:old" else None

    host = Host()
    host.manager.register(Opener())
    assert isinstance(open_model("attic:old", IMAGES, host), nn.Sequential)


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(UnknownMethod, match="did you mean cnn"):
        open_model("cn", IMAGES, Host())
    with pytest.raises(ModelError, match="unknown model source 'tim:resnet18'; did you mean timm:resnet18"):
        open_model("tim:resnet18", IMAGES, Host())


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_an_absent_package_is_named_with_its_install_line(package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ModelError, match=f"pip install {package}"):
        open_model(f"{package}:resnet18", LARGE_IMAGES, Host())


HF_SEQUENCES = Task(
    "classification",
    (TensorSpec("input_ids", (12,), "int64", 9), TensorSpec("attention_mask", (12,), "int64")),
    3,
    layout="dict",
)


class TestTransformers:
    """Tiny models, saved by the library itself."""

    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        self.transformers = pytest.importorskip("transformers")
        self.folder = tmp_path / "saved"

    def _bert(self) -> Any:
        config = self.transformers.BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        return self.transformers.BertForSequenceClassification(config)

    @pytest.mark.parametrize("task", [SEQUENCES, HF_SEQUENCES])
    def test_sequences_with_a_mask(self, task: Task) -> None:
        saved = self._bert()
        saved.save_pretrained(self.folder)
        model = open_model(f"hf:{self.folder}", task, Host()).eval()
        inputs = inputs_of(task, 2)
        assert forward(model, inputs).shape == (2, 3)
        assert last_linear(model).out_features == 3
        assert any(torch.equal(p, saved.bert.embeddings.word_embeddings.weight) for p in model.parameters())

    def test_random_weights_take_the_sizes_of_the_data(self) -> None:
        self._bert().save_pretrained(self.folder)
        model = open_model(f"hf:{self.folder}?pretrained=false", SEQUENCES, Host())
        assert next(p for n, p in model.named_parameters() if "word_embeddings" in n).shape[0] == 10  # and the padding

    def test_images(self) -> None:
        config = self.transformers.ViTConfig(
            image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        self.transformers.ViTForImageClassification(config).save_pretrained(self.folder)
        assert forward(open_model(f"hf:{self.folder}", IMAGES, Host()), example(IMAGES)).shape == (2, 4)
        random = open_model(f"hf:{self.folder}?pretrained=false", LARGE_IMAGES, Host())
        assert forward(random, example(LARGE_IMAGES)).shape == (2, 4)
        with pytest.raises(ModelError, match="does not take this data's inputs"):
            open_model(f"hf:{self.folder}", LARGE_IMAGES, Host())

    def test_text(self) -> None:
        config = self.transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=1, n_head=2)
        self.transformers.GPT2LMHeadModel(config).save_pretrained(self.folder)
        assert forward(open_model(f"hf:{self.folder}", TEXT, Host()), example(TEXT)).shape == (2, 12, 30)
        random = open_model(f"hf:{self.folder}?pretrained=false", TEXT, Host())
        assert forward(random, example(TEXT)).shape == (2, 12, 9)

    def test_weights_that_would_be_overwritten_are_not_read(self) -> None:
        self._bert().save_pretrained(self.folder)
        (self.folder / "model.safetensors").unlink()
        open_model(f"hf:{self.folder}", SEQUENCES, Host(), weights=False)
        with pytest.raises(ModelError, match="cannot be opened"):
            open_model(f"hf:{self.folder}", SEQUENCES, Host())

    def test_pickled_weights_and_remote_code_are_never_read(self) -> None:
        saved = self._bert()
        saved.save_pretrained(self.folder)
        (self.folder / "model.safetensors").unlink()
        torch.save(saved.state_dict(), self.folder / "pytorch_model.bin")
        with pytest.raises(ModelError, match="safetensors"):
            open_model(f"hf:{self.folder}", SEQUENCES, Host())
        (self.folder / "configuration_own.py").write_text("raise SystemExit('remote code ran')")
        remote = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.Own"}}
        (self.folder / "config.json").write_text(json.dumps(remote))
        with pytest.raises(ModelError, match="cannot be opened"):
            open_model(f"hf:{self.folder}", SEQUENCES, Host())

    def test_what_cannot_be_opened_is_one_line(self) -> None:
        with pytest.raises(ModelError, match="hf:no/such cannot be opened") as caught:
            open_model("hf:no/such", SEQUENCES, Host())
        assert "\n" not in str(caught.value)
        with pytest.raises(ModelError, match="has no option 'pretraind'"):
            open_model("hf:no/such?pretraind=1", SEQUENCES, Host())
        with pytest.raises(ModelError, match=re.escape("not a classification task of row")):
            open_model("hf:no/such", TABLE, Host())
