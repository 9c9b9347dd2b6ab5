"""Comparisons: paired, resumable, fair, and told in a report."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from paper_toolbox.engine.compare import compare
from paper_toolbox.engine.comparison.comparison import Comparison, methods_of, values_of
from paper_toolbox.engine.comparison.report import report, said, sentence
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.search_space import drawn, ranges
from paper_toolbox.errors import ArtifactError, NeedError, ParamError
from paper_toolbox.files import locked
from paper_toolbox.host import Host
from paper_toolbox.recipe import assemble

FLAGS = {"model": "mlp?hidden=8&depth=1", "data": "wine", "epochs": 2, "batch_size": 32, "device": "cpu"}


def comparison(*names: str, seeds: int = 3, sets: tuple[str, ...] = (), **more: Any) -> Comparison:
    return Comparison(methods_of(Host(), None, names, sets, FLAGS), seeds, **more)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    made = comparison("adamw", "sgd", "adamw+max_sup", sets=("adamw.lr=0.02", "max_sup.alpha_end=0.05"), tune=2)
    out = tmp_path_factory.mktemp("compare") / "out"
    compare(made, out, show=Silent())
    return made, out


@pytest.mark.slow
def test_runs_are_paired_by_seed(done: tuple[Comparison, Path], tmp_path: Path) -> None:
    """The same method twice, under two names, gives the same numbers; each seed gives others."""
    made = comparison("adamw", "optimizer:adamw", seeds=2)
    compare(made, tmp_path / "out", show=Silent())
    values, better = values_of(made)
    assert values["adamw"] == values["optimizer:adamw"]
    assert better
    losses = [made.results["adamw"][seed]["history"][-1]["train_loss"] for seed in (0, 1)]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_report_tells_all(done: tuple[Comparison, Path]) -> None:
    made, out = done
    rows = report(made, out)
    assert [row["method"] for row in rows] == ["adamw", "sgd", "adamw+max_sup"]
    page = (out / "report.html").read_text("utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/png;base64,") == 3
    assert all(f"<code>{row['method']}</code>" in page for row in rows)
    with (out / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 9
    assert all(math.isfinite(float(line["value"])) for line in lines)
    assert json.loads((out / "comparison.json").read_text("utf-8"))["rows"] == rows
    assert all(row["memory"] > 4 * 200 for row in rows)  # bytes of the weights alone
    assert len(made.trials["sgd"]) == 2
    assert {said(row) for row in rows} >= {"the first"}


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(done: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With more seeds, only these are trained; with other options it is another comparison."""
    made, out = done
    files = {file: file.stat().st_mtime_ns for file in (out / "runs").iterdir()}
    again = comparison(
        "adamw", "sgd", "adamw+max_sup", sets=("adamw.lr=0.02", "max_sup.alpha_end=0.05"), tune=2, seeds=4
    )
    compare(again, out, resume=True, show=Silent())
    assert all(file.stat().st_mtime_ns == before for file, before in files.items())
    assert {label: len(own) for label, own in again.results.items()} == dict.fromkeys(again.recipes, 4)
    assert {label: {s: own[s] for s in range(3)} for label, own in again.results.items()} == made.results
    with pytest.raises(ArtifactError, match="another comparison"):
        compare(comparison("adamw", "sgd", tune=2), out, resume=True, show=Silent())
    with pytest.raises(ArtifactError, match="already exists"):
        compare(made, out, show=Silent())


@pytest.mark.slow
def test_a_folder_in_use_is_refused(done: tuple[Comparison, Path]) -> None:
    made, out = done
    with locked(out), pytest.raises(ArtifactError, match="another process works in it"):
        compare(
            comparison(*made.recipes, sets=("adamw.lr=0.02", "max_sup.alpha_end=0.05"), tune=2),
            out,
            resume=True,
            show=Silent(),
        )


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    made = comparison("adamw", "sgd", sets=("sgd.lr=1e30",))
    compare(made, tmp_path / "out", show=Silent())
    rows = report(made, tmp_path / "out")
    assert said(rows[1]) == "failed with 3 of 3 seeds"
    assert "the loss became" in (tmp_path / "out" / "report.html").read_text("utf-8")
    broken = comparison("adamw", "sgd", sets=("sgd.lr=1e30", "adamw.lr=1e30"))
    compare(broken, tmp_path / "broken", show=Silent())
    with pytest.raises(NeedError, match="every run failed; the first said: the loss became"):
        report(broken, tmp_path / "broken")


@pytest.mark.slow
def test_it_stops_early_when_all_is_decided(tmp_path: Path) -> None:
    made = comparison("adamw", "sgd", sets=("adamw.lr=0.05", "sgd.lr=1e-6"), seeds=12, stop_early=True)
    compare(made, tmp_path / "out", show=Silent())
    assert len(made.results["sgd"]) == made.looks[0] < 12
    with pytest.raises(ArtifactError, match="another comparison"):  # looks that are planned stay as they are
        compare(dataclasses.replace(made, seeds=13), tmp_path / "out", resume=True, show=Silent())


def test_fields_go_to_the_methods_that_have_them() -> None:
    recipes = methods_of(Host(), None, ["adamw", "adamp"], ["adamp.delta=0.2", "accumulate=2"], FLAGS)
    assert recipes["adamp"].plugins[0].fields["delta"] == 0.2
    assert all(recipe.training.accumulate == 2 for recipe in recipes.values())
    with pytest.raises(ParamError, match="two methods or more"):
        methods_of(Host(), None, ["adamw"], [], FLAGS)
    with pytest.raises(ParamError, match="named twice"):
        methods_of(Host(), None, ["adamw", "adamw"], [], FLAGS)
    with pytest.raises(ParamError, match="is not a method of this run"):
        methods_of(Host(), None, ["adamw", "sgd"], ["adamp.lr=1"], FLAGS)


def test_what_a_run_has_but_one_of_replaces_that_of_the_recipe() -> None:
    base = assemble(Host(), None, ["adamw", "cross_entropy", "weight_norm"], ["adamw.lr=0.02", "adamw.eps=1e-6"], FLAGS)
    recipes = methods_of(Host(), base, ["adamw", "adamp", "max_sup"], [], {})
    names = {label: {c.name for c in recipe.plugins} for label, recipe in recipes.items()}
    assert names == {
        "adamw": {"adamw", "cross_entropy", "weight_norm"},
        "adamp": {"adamp", "cross_entropy", "weight_norm"},
        "max_sup": {"adamw", "max_sup", "weight_norm"},
    }
    assert next(c.fields["lr"] for c in recipes["adamw"].plugins if c.name == "adamw") == 0.02


def test_what_cannot_be_trained_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="int8"):
        compare(comparison("adamw", "int8"), tmp_path / "out", show=Silent())
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="holds no comparison: --resume needs --out FOLDER"):
        compare(comparison("adamw", "sgd"), tmp_path / "out", resume=True, show=Silent())


def test_the_sentence_says_how_sure_it_is() -> None:
    """With looks that were not planned, and with too few seeds for any verdict."""
    rows = [{"method": name, "seeds": 12, "failed": 0, "verdict": v} for name, v in (("a", ""), ("b", "better"))]
    found = {"rows": rows, "metric": "accuracy", "looks": [6, 12], "level": 0.1}
    said_ = "Accuracy with 12 seeds: b better than a (an error in any of these has a probability of at most 10%, since"
    assert sentence(found).startswith(said_)
    few = [row | {"seeds": 5, "verdict": "undecided"} for row in rows]
    assert (
        sentence(found | {"rows": few}) == "Accuracy with 5 seeds: b undecided. A verdict on 1 takes 6 seeds at least."
    )


def test_values_are_drawn_within_their_ranges() -> None:
    host = Host()
    recipe = assemble(host, None, ["sam"], ["sam.rho=0.1"], FLAGS)
    spans = {r.field: r for r in ranges(recipe, host)}
    assert (spans["lr"].low, spans["lr"].high) == pytest.approx((0.001, 0.1))  # around the base's own
    found = [r.plugins[0].fields["lr"] for r in drawn(recipe, list(spans.values()), 50, seed=0)]
    assert found[0] is None
    assert all(0.001 <= lr <= 0.1 for lr in found[1:])
    assert sum(lr < 0.01 for lr in found[1:]) in range(15, 36)  # evenly by the logarithm
    assert drawn(recipe, [], 5, seed=0) == [recipe]
