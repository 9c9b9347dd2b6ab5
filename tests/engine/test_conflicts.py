"""Traits, and the rules that decide by them: before a run, with the reason, and the same for all commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import toolbox
from paper_toolbox import catalog
from paper_toolbox.engine.compare import compare
from paper_toolbox.engine.comparison.comparison import Comparison, methods_of
from paper_toolbox.engine.compatibility import clashes
from paper_toolbox.engine.compatibility.case import Case
from paper_toolbox.engine.compatibility.conflicts import find
from paper_toolbox.engine.compatibility.covering import next_row, pairs_of, universe
from paper_toolbox.engine.compatibility.rehearsal import Rehearsal
from paper_toolbox.engine.compatibility.tiny import MODEL, SOURCES, classes, values
from paper_toolbox.engine.compatibility.traits import DERIVED, MEANING, traits_of
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.methods import Methods, gather
from paper_toolbox.engine.train import train
from paper_toolbox.engine.why import Why
from paper_toolbox.errors import Conflict
from paper_toolbox.host import Host
from paper_toolbox.kinds import KINDS, TRAITS, Part, Regimen
from paper_toolbox.recipe import Choice, Recipe, assemble

HOST = Host()


def found(*words: str, world: int = 1, fresh: bool = False, **flags: Any) -> list[tuple[str, str]]:
    """(severity, line) of what the rules find; words with = are settings."""
    sets = [word for word in words if "=" in word]
    data = values() if "mse" in words else classes()
    recipe = assemble(HOST, None, [w for w in words if "=" not in w], sets, {"data": data.source, **flags})
    case = Case(recipe, gather(recipe, HOST, data.task, teacher="sinkd" in words), data.task, world, fresh)
    return [(finding.severity, finding.line) for finding in find(case)]


def test_a_trait_is_declared_once_and_known() -> None:
    """What can be derived is not declared as well."""
    assert not TRAITS.keys() & DERIVED.keys()
    for card in catalog.cards():
        if card.kind in KINDS and issubclass(KINDS[card.kind], Part):
            assert set(HOST.build(card.name, card.kind).traits) <= TRAITS.keys(), card.name


def test_every_trait_is_looked_at_by_a_rule() -> None:
    source = Path(clashes.__file__).read_text("utf-8")
    assert not [trait for trait in TRAITS if f'"{trait}"' not in source]


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("sam", {}, {"closure"}),
        ("sam", {"base": "lion"}, {"closure", "gradient_scale"}),
        ("grad_norm_clip", {"base": "sam?base=opt_amsgrad"}, {"closure", "gradient_scale", "own_weights"}),
        ("lawn", {}, {"scheduled", "fixed_length"}),
        ("m_ngp", {}, {"closure", "samples", "apart", "mapped", "private"}),
        ("psgd", {}, {"closure", "loss_only", "second_order"}),
        ("psgd", {"fit": "whitening"}, {"closure", "loss_only"}),
        ("cbo", {}, {"closure", "loss_only"}),
        ("weight_norm", {}, {"edits", "data", "splits", "weight_scale"}),
        ("norm_loss", {}, {"penalty", "above_zero", "no_forward", "pulls_length"}),
        ("sinkd", {}, {"teacher", "above_zero", "no_forward", "no_second", "pairs"}),
        ("adamp", {}, set()),
    ],
)
def test_traits_are_derived_and_those_of_what_is_inside_count(name: str, fields: Any, expected: set[str]) -> None:
    assert traits_of(HOST.build(name, **fields)) == expected
    assert expected <= MEANING.keys()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("egn", "multi_similarity"), "egn looks at single samples: .* not features"),
        (("pcngd", "mse"), "pcngd takes one class per sample; .* is regression: use classification data"),
        (("layer_norm", "rms_norm"), "put norm layers into the same places: keep one of them"),
        (("psgd", "sinkd"), "psgd differentiates the loss twice, and sinkd has no second"),
        (("forward_gradient", "norm_loss"), "forward, and norm_loss has none of that mode"),
        (("egn", "spectral_norm"), "spectral_norm writes to its buffers"),
        (("tract", "weight_norm"), "first layer's weight itself, and weight_norm computes it"),
        (("sara", "random_pruning"), "which random_pruning holds at zero"),
        (("svd", "trained_rank_pruning"), "both split layers into factors of low rank"),
        (("spectral_norm", "weight_norm"), "weight_norm keeps .* must come before spectral_norm: name it first"),
        (("sania", "clip_norm=1"), "sania computes no gradient that clip_norm could clip"),
        (("sam", "precision=fp16"), "sam evaluates the loss itself and cannot scale it for fp16"),
        (("ranger21", "warmup=0.1"), "ranger21 sets its step size over the run itself"),
        (("lawn", "lawn.base=opt_amsgrad"), "changes weights behind the step of opt_amsgrad"),
        (("lawn", "weights=bf16_master", "precision=bf16"), "lawn changes weights .*: take bf16_stochastic"),
        (("adamp", "teacher=runs/x"), "no loss of this run learns from one"),
    ],
)
def test_what_cannot_go_together(words: tuple[str, ...], line: str) -> None:
    lines = [said for severity, said in found(*words) if severity == "cannot"]
    assert any(re.search(line, said) for said in lines), lines


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("lion", "clip_norm=1"), "clip_norm does little: lion"),
        (("agc", "agc.base=lion"), "agc scales gradients for lion"),
        (("adamw", "norm_loss"), "norm_loss stands in for weight decay, and adamw decays as well"),
        (("norm_loss",), "and the default optimizer decays as well"),
        (("lawn", "norm_loss"), "lawn holds them"),
        (("sania", "label_smoothing"), "label_smoothing is larger: set sania.f_star"),
        (("zoodip", "precision=bf16"), "of which bf16 leaves little"),
        (("spectral_norm", "weight_conditioning"), "weight_conditioning decides"),
        (("m_ngp", "weight_norm"), "weight_norm looks at the data itself"),
        (("m_ngp",), "keep=best"),
        (("sinkd", "accumulate=2"), "of each part of accumulate"),
        (("psgd", "engine=compiled"), "engine=compiled changes nothing: psgd"),
    ],
)
def test_what_needs_care(words: tuple[str, ...], line: str) -> None:
    lines = [said for severity, said in found(*words) if severity == "careful"]
    assert any(line in said for said in lines), lines


@pytest.mark.parametrize(
    "words",
    [
        ("adamp", "weight_norm", "max_sup"),
        ("adamw", "norm_loss", "adamw.weight_decay=0"),
        ("sania", "label_smoothing", "sania.f_star=0.5"),
        ("sam", "sam.base=adamw", "engine=compiled"),
        ("m_ngp", "keep=last", "weight_conditioning"),
        ("grad_norm_clip",),
        ("lion", "precision=bf16"),
    ],
)
def test_what_goes_together_is_left_in_peace(words: tuple[str, ...]) -> None:
    assert found(*words) == []


def test_models_that_are_trained_already_and_those_that_are_not() -> None:
    assert found("sara", "svd") == []
    assert "sara is meant for a trained model" in found("sara", fresh=True)[0][1]
    (line,) = found("adamp", "svd", "random_pruning", fresh=True)
    assert "toolbox compress RUN --plugin svd" in line[1]


def test_several_processes_and_regimens() -> None:
    assert "in one process only" in found("sania", world=2)[0][1]
    assert "each process's share" in found("sinkd", world=2)[0][1]

    class Echo(Regimen):
        def train(self, run: Any) -> None: ...

    plugins = (Choice("regimen", "echo"), Choice("loss", "multi_similarity"))
    recipe = Recipe(plugins=plugins)
    loss = HOST.build("multi_similarity")
    methods = Methods(regimen=Echo(), losses=[("multi_similarity", loss)], verbs={"multi_similarity": loss.__call__})
    (finding,) = find(Case(recipe, methods, classes().task))
    assert finding.about == ("echo", "multi_similarity")
    assert "outputs and targets alone, not features" in finding.line


@pytest.mark.parametrize(
    ("names", "about", "line"),
    [
        (
            ("weight_norm", "structured_pruning"),
            ("weight_norm", "structured_pruning"),
            "structured_pruning undoes what",
        ),
        (("magnitude_pruning", "structured_pruning"), ("magnitude_pruning", "structured_pruning"), "undoes what"),
        (("weight_norm", "svd"), ("weight_norm", "svd"), "svd undoes what weight_norm did"),
        (("weight_norm", "trained_rank_pruning"), ("weight_norm", "trained_rank_pruning"), "undoes what"),
        (("int8",), ("int8",), "int8 is the last thing done to a model"),
    ],
)
def test_what_the_edits_of_a_model_tell(names: tuple[str, ...], about: tuple[str, ...], line: str) -> None:
    with pytest.raises(Conflict, match=line) as found:
        Rehearsal().train(names)
    assert found.value.about == about


def test_batch_statistics_and_samples_one_by_one() -> None:
    """The model decides, and a normalizer may change it."""
    answer = asked("pcngd", "layer_norm", model="cnn?width=4&depth=1")
    alone = {row["name"]: row["outcome"] for row in answer["methods"]}
    assert alone == {"pcngd": "cannot", "layer_norm": "goes together"}
    assert "(BatchNorm2d)" in answer["methods"][0]["lines"][0]
    assert answer["pairs"][0]["outcome"] == "goes together"
    sets = ("weight_norm.mean_only_bn=true",)
    (finding,) = asked("pcngd", "weight_norm", sets=sets, model=MODEL)["pairs"]
    assert finding["outcome"] == "cannot"
    assert "(MeanOnlyBatchNorm)" in finding["lines"][0]


def asked(*names: str, sets: tuple[str, ...] = (), **flags: Any) -> dict[str, Any]:
    recipe = assemble(HOST, None, names, sets, {"device": "cpu", **flags})
    return Why(recipe, HOST, given="data" in flags).answer()


def test_a_teacher_and_data_that_suit_are_found() -> None:
    assert asked("sinkd", "adamp", model=MODEL)["pairs"][0]["outcome"] == "goes together"
    answer = asked("mse", "pcngd", model="mlp?hidden=8")
    assert answer["settings"]["data"] == "diabetes"
    assert "diabetes is regression" in answer["pairs"][0]["lines"][0]
    given = asked("mse", model="mlp?hidden=8", data="wine")
    assert "mse is a loss for regression; wine is classification" in given["methods"][0]["lines"][0]


def test_a_run_of_three_says_what_two_do_not() -> None:
    """A pair's reasons are not said again; a run's own are."""
    answer = asked("adamp", "weight_norm", "adamw", model=MODEL)
    assert [row["outcome"] for row in answer["pairs"]] == ["goes together", "cannot", "goes together"]
    assert "adamp and adamw are both optimizers" in answer["together"]["lines"][0]


@pytest.mark.slow
def test_one_method_is_told_with_what_it_does_not_go() -> None:
    answer = asked("m_ngp", model=MODEL, sets=("keep=last",))
    rows = {row["name"]: row for row in answer["with"]}
    assert {"multi_similarity", "norm_loss", "max_sup"} <= rows.keys()
    assert not {"adamp", "cross_entropy", "layer_norm", "int8"} & rows.keys()  # int8 goes with nothing
    assert rows["weight_norm"]["outcome"] == "careful"
    answer = asked("m_ngp", model="cnn?width=4&depth=1", sets=("keep=last",))
    assert {r["name"] for r in answer["with"] if r["outcome"] == "goes together"} == {"layer_norm", "rms_norm"}


def test_a_run_tells_once_and_keeps_what_needs_care(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = {"data": SOURCES["classification"], "model": MODEL, "epochs": 2, "device": "cpu"}
    run = train(assemble(HOST, None, ["lion"], ["clip_norm=1"], flags), tmp_path / "run", HOST)
    (line,) = run.summary["careful"]
    assert capfd.readouterr().err.count(f"careful: {line}\n") == 1


def test_the_command_line_answers(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = toolbox(capsys, "why", "egn+multi_similarity", "--model", MODEL)
    assert status == 0
    assert "\negn + multi_similarity: cannot: egn looks at single samples: its losses see" in out
    assert "  pairs: compares the samples of a batch with each other\n" in out
    status, out, _ = toolbox(capsys, "why", "adamp", "weight_norm", "--model", MODEL, "--json")
    assert json.loads(out)["pairs"] == [{"methods": ["adamp", "weight_norm"], "outcome": "goes together", "lines": []}]
    assert "features" not in json.loads(out)["methods"][0]["needs"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["adamp+adampp"], "'adampp'"),
        ([], "name a method or several"),
        (["adamp", "--set", "adamp.x=1"], "no field 'x'"),
    ],
)
def test_what_is_not_there_is_an_error(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = toolbox(capsys, "why", *words)
    assert (status, out) == (1, "")
    assert line in err
    assert err.count("\n") == 1


def test_a_comparison_refuses_before_anything_is_trained(tmp_path: Path) -> None:
    flags = {"model": MODEL, "data": SOURCES["classification"], "epochs": 1, "device": "cpu"}
    recipes = methods_of(HOST, None, ["adamp", "egn+multi_similarity"], (), flags)
    with pytest.raises(Conflict, match="egn looks at single samples"):
        compare(Comparison(recipes, 2), tmp_path / "out", show=Silent())
    assert not (tmp_path / "out").exists()


def test_rows_cover_every_pair_and_no_barred_one() -> None:
    slots = {
        "a": ["no a", "a1", "a2", "a3"],
        "b": ["no b", "b1", "b2"],
        "then b": ["", "b1", "b2"],
        "c": ["no c", "c1"],
    }
    barred = {("a1", "b2"), ("b1", "c1"), ("no b", "b1"), ("no b", "b2")}
    left, rows = universe(slots, barred), []
    assert ("b1", "b1") not in left
    while left:
        rows.append(next_row(slots, left, barred))
        met = pairs_of(rows[-1])
        assert not met & barred
        assert next(iter(left)) in met
        left = {pair: None for pair in left if pair not in met}
    assert len(rows) <= 12
