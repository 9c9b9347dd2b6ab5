"""Models of transformers as a task sees them: the same answers, padding that counts for nothing, clear refusals."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox import artifact
from paper_toolbox.engine.setup.models import open_model, resolved_source
from paper_toolbox.errors import ModelError
from paper_toolbox.files import sha256
from paper_toolbox.host import Host
from paper_toolbox.kit.batch import forward
from paper_toolbox.kit.capture import last_linear
from paper_toolbox.kit.channels import Channels
from paper_toolbox.kit.persample import parameter_gradients
from paper_toolbox.kit.samples import Samples
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing.model import IMAGES, LARGE_IMAGES, SEQUENCES, TABLE, TEXT, inputs_of
from small_hf import config_of, saved
from torch import Tensor, nn

CODERS = ("bert", "distilbert", "roberta", "gpt2", "llama")
IDS = SEQUENCES.inputs[0]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def opened(folder: Path, task: Task, **options: str) -> nn.Module:
    return open_model(f"hf:{folder}", task, Host(), options).eval()


def fresh(folder: Path, task: Task) -> nn.Module:
    return opened(folder, task, pretrained="false")


@pytest.mark.parametrize("name", CODERS)
def test_what_the_mask_hides_does_not_count(name: str, tmp_path: Path) -> None:
    model = fresh(saved(tmp_path, name), SEQUENCES)
    inputs: Any = inputs_of(SEQUENCES, 4)  # hidden at the end, and at the start
    ids, mask = inputs["ids"], inputs["mask"]
    others = torch.where(mask == 1, ids, (ids + 1 + torch.arange(12) % 7) % 9)
    expected = model(ids=ids, mask=mask)
    torch.testing.assert_close(model(ids=others, mask=mask), expected)
    assert not torch.allclose(model(ids=others, mask=torch.ones_like(mask)), expected)


@pytest.mark.parametrize("name", CODERS)
def test_every_id_of_the_data_is_a_token(name: str, tmp_path: Path) -> None:
    """Not even 0 is taken for padding: it is trained, and as the last token it is read."""
    task = replace(SEQUENCES, inputs=(IDS,), layout="tensor")
    model = fresh(saved(tmp_path, name), task)
    ids = torch.zeros(1, 12, dtype=torch.int64)
    ids[0, :11] = torch.arange(11) % 8 + 1
    other = ids.clone()
    other[0, 11] = 8
    assert not torch.allclose(model(ids), model(other))
    model(ids)[0, 0].backward()
    table = next(p for n, p in model.named_parameters() if "word_emb" in n or "wte" in n or "embed_tokens" in n)
    assert table.shape[0] == 10  # the nine ids of the data, and the padding
    assert table.grad is not None
    assert table.grad[1].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bert", "SequenceClassification"), ("gpt2", "CausalLM"), ("llama", "CausalLM"), ("vit", "ImageClassification")],
)
def test_a_saved_model_answers_as_transformers_does(name: str, kind: str, tmp_path: Path) -> None:
    import transformers

    task = {"SequenceClassification": SEQUENCES, "CausalLM": TEXT, "ImageClassification": IMAGES}[kind]
    own = getattr(transformers, f"AutoModelFor{kind}").from_config(config_of(name, num_labels=task.outputs)).eval()
    own.half().save_pretrained(tmp_path)
    own.float()
    model, inputs = opened(tmp_path, task), inputs_of(task, 3)
    names = {"ids": "input_ids", "mask": "attention_mask", "image": "pixel_values"}
    named: Any = inputs if isinstance(inputs, dict) else {task.inputs[0].name: inputs}
    expected = own(**{names[key]: x for key, x in named.items()}).logits
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(forward(model, inputs), expected)
    assert last_linear(model).out_features == expected.shape[-1]
    again = opened(tmp_path, replace(task, outputs=7, kind=task.kind)) if task.kind != "tokens" else model
    assert task.kind == "tokens" or forward(again, inputs).shape == (3, 7)  # a new head


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_text_is_read_without_looking_ahead(name: str, tmp_path: Path) -> None:
    model, ids = fresh(saved(tmp_path, name), TEXT), inputs_of(TEXT, 2)
    assert isinstance(ids, Tensor)
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 9
    before, after = model(ids), model(changed)
    assert before.shape == (2, 12, 9)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_tied_weights_stay_one_tensor(tmp_path: Path) -> None:
    folder = saved(tmp_path / "hf", "gpt2")
    model, other = fresh(folder, TEXT), fresh(folder, TEXT)
    head, table = (other.get_submodule(f"model.{path}") for path in ("lm_head", "transformer.wte"))
    assert head.weight is table.weight
    (tmp_path / "run").mkdir()
    made = set()
    for _ in range(8):
        artifact.write_weights(tmp_path / "run", model.state_dict())
        made.add(sha256(tmp_path / "run" / "model.safetensors"))
    assert len(made) == 1
    other.load_state_dict(artifact.read_weights(tmp_path / "run"))
    assert head.weight is table.weight
    ids = inputs_of(TEXT, 2)
    assert torch.equal(forward(model, ids), forward(other, ids))


def test_the_layers_of_gpt2_are_linear_layers(tmp_path: Path) -> None:
    model = fresh(saved(tmp_path, "gpt2"), TEXT)
    assert {type(m).__name__ for m in model.modules() if hasattr(m, "weight")} == {"Embedding", "LayerNorm", "Linear"}
    assert sum(isinstance(m, nn.Linear) for m in model.modules()) == 5


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_structured_pruning_finds_the_feed_forward_layers(name: str, tmp_path: Path) -> None:
    """Through rotary positions torch-pruning itself would search for ever."""
    found = Channels(fresh(saved(tmp_path, name), TEXT), inputs_of(TEXT, 2))
    assert [(group.path.rpartition(".")[2] in ("c_fc", "up_proj", "gate_proj")) for group in found.groups] == [True]
    if name == "llama":
        projections = [path for path, why in found.refused.items() if "without end" in why]
        assert {path.rpartition(".")[2] for path in projections} == {"q_proj", "k_proj", "v_proj"}


def test_gradients_of_single_samples_of_a_masked_model_are_refused(tmp_path: Path) -> None:
    model, inputs = fresh(saved(tmp_path, "bert"), SEQUENCES), inputs_of(SEQUENCES, 2)

    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum()

    samples = Samples(model, [(inputs, torch.zeros(2, dtype=torch.int64))], score, nullcontext)
    with pytest.raises(ModelError, match="has no gradients of single samples: its forward decides by the values"):
        next(parameter_gradients(samples, list(model.parameters())))


def test_token_types_and_numbers_to_predict(tmp_path: Path) -> None:
    task = Task("regression", (IDS, TensorSpec("types", (12,), "int64", 3)), 2, layout="dict")
    model = fresh(saved(tmp_path / "bert", "bert"), task)
    types = torch.zeros(2, 12, dtype=torch.int64)
    ids: Any = inputs_of(task, 2)
    assert model(ids=ids["ids"], types=types).shape == (2, 2)
    assert not torch.allclose(model(ids=ids["ids"], types=types), model(ids=ids["ids"], types=types + 2))
    with pytest.raises(ModelError, match="takes no token_type_ids, and this data has types"):
        fresh(saved(tmp_path / "distil", "distilbert"), task)
    twice = replace(task, inputs=(IDS, TensorSpec("more", (12,), "int64", 3)))
    with pytest.raises(ModelError, match="takes one input as input_ids, and this data has two, ids and more"):
        fresh(tmp_path / "bert", twice)


def test_a_source_is_pinned_to_its_files(tmp_path: Path) -> None:
    import transformers

    transformers.ViTForImageClassification(config_of("vit", num_labels=4)).save_pretrained(tmp_path)
    plain = resolved_source(f"hf:{tmp_path}?pretrained=false", Host())
    whole = resolved_source(f"hf:{tmp_path}", Host())
    assert plain.count("sha256=") == 1
    assert whole.count("sha256=") == 2
    assert resolved_source(whole, Host()) == whole
    for source in (plain, whole):
        open_model(source, IMAGES, Host())
    transformers.ViTForImageClassification(config_of("vit", num_labels=4)).save_pretrained(tmp_path)
    open_model(plain, IMAGES, Host())
    open_model(whole, IMAGES, Host(), weights=False)  # a run brings its own
    with pytest.raises(ModelError, match="is not what it was: its weights had weights_sha256="):
        open_model(whole, IMAGES, Host())
    saved(tmp_path, "vit", hidden_act="relu")
    with pytest.raises(ModelError, match=r"is not what it was: its config.json had config_sha256="):
        open_model(plain, IMAGES, Host())


REFUSED = [
    ("vit", SEQUENCES, "is a vit model, which transformers has no form of for this data .*take one like bert"),
    ("bert", IMAGES, "is a bert model, .*take one like vit or convnext"),
    ("distilbert", TEXT, "is a distilbert model, .*take one like gpt2 or llama"),
    ("roberta", TEXT, "running text has no such id: take one like gpt2 or llama"),
    ("vit", TABLE, "not a classification task of row"),
    (
        "gpt2",
        replace(TEXT, inputs=(replace(TEXT.inputs[0], shape=(20,)),)),
        r"use text:PATH\?length=16; or set a larger",
    ),
    ("roberta", replace(SEQUENCES, inputs=(replace(IDS, shape=(20,)),)), "positions for 17 tokens"),
]


@pytest.mark.parametrize(("name", "task", "message"), REFUSED)
def test_data_of_another_kind_is_refused(name: str, task: Task, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        fresh(saved(tmp_path, name), task)


def test_what_a_folder_must_hold(tmp_path: Path) -> None:
    def said(folder: Path, task: Task = SEQUENCES, **options: str) -> str:
        with pytest.raises(ModelError) as caught:
            opened(folder, task, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not exist" in said(tmp_path / "absent")
    assert "has no config.json" in said(tmp_path)
    folder = saved(tmp_path / "hf", "bert")
    assert "?pretrained=false starts from random weights" in said(folder)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    assert "is damaged or cut off" in said(folder)
    (folder / "config.json").write_text("{")
    assert "cannot be read" in said(folder)
    (folder / "config.json").write_text('{"hidden_size": 16}')
    assert "names no model_type" in said(folder)
    (folder / "config.json").write_text('{"model_type": "no_such"}')
    assert "no_such" in said(folder)
    assert "is a file" in said(folder / "config.json")
    assert "it is no folder, and not in the hub's cache" in said(Path("no") / "such")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    import transformers

    transformers.BertForMaskedLM(config_of("bert")).save_pretrained(tmp_path)  # has no pooler and no classifier
    assert forward(opened(tmp_path, SEQUENCES), inputs_of(SEQUENCES, 2)).shape == (2, 3)
    with pytest.raises(ModelError, match="knows 30 token ids, and this data has 40"):
        opened(tmp_path, replace(SEQUENCES, inputs=(replace(IDS, vocabulary=40),), layout="tensor"))
    saved(tmp_path, "bert", hidden_size=32)
    with pytest.raises(ModelError, match=r"its weights do not fit bert.embeddings"):
        opened(tmp_path, SEQUENCES)
    saved(tmp_path, "bert", num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"its weights lack bert.encoder.layer.1.* and 15 more tensors"):
        opened(tmp_path, SEQUENCES)


class Bomb:
    """Unpickled, it ends the process."""

    def __reduce__(self) -> Any:
        return SystemExit, ("a pickle was read",)


def test_no_pickle_is_read_and_no_code_is_run(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    for name in ("pytorch_model.bin", ".metadata", "__0_0.distcp"):  # as torch's distributed checkpoints are called
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"pytorch_model.bin is a pickle, which can run code and is never read"):
        opened(folder, SEQUENCES)
    (folder / "modeling_own.py").write_text("raise SystemExit('foreign code ran')")
    config = json.loads((folder / "config.json").read_text())
    for kind in ("bert", "own"):
        auto = {"AutoConfig": "modeling_own.C", "AutoModelForSequenceClassification": "modeling_own.M"}
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": auto}))
        for pretrained in ("true", "false"):
            with pytest.raises(ModelError, match=r"code of its own \(auto_map\), which is never run"):
                opened(folder, SEQUENCES, pretrained=pretrained)


def test_weights_in_several_files(tmp_path: Path) -> None:
    import transformers

    own = transformers.GPT2LMHeadModel(config_of("gpt2")).eval()
    own.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ids = inputs_of(TEXT, 2)
    torch.testing.assert_close(forward(opened(tmp_path, TEXT), ids), own(ids).logits)
    pinned = resolved_source(f"hf:{tmp_path}", Host())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="which is no safetensors file beside it"):
        open_model(pinned, TEXT, Host())


def test_a_model_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    repository = tmp_path / "models--org--small"
    saved(repository / "snapshots" / commit, "vit")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    model = open_model("hf:org/small?pretrained=false", LARGE_IMAGES, Host())
    assert forward(model, inputs_of(LARGE_IMAGES, 2)).shape == (2, 4)
    assert "config_sha256" in resolved_source("hf:org/small?pretrained=false", Host())
