"""A third party's observer, a package beside the run: named in a recipe, it is told all and called by its name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paper_toolbox import catalog
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.errors import ParamError, PluginError
from paper_toolbox.host import Host
from paper_toolbox.recipe import assemble, read_file
from paper_toolbox.testing.package import stage

PYPROJECT = """
[project]
name = "paper-toolbox-guest-bell"
version = "2.0"
[project.entry-points."paper_toolbox.observer"]
guest_bell = "guest_bell"
"""
SOURCE = """
from contextlib import contextmanager
from dataclasses import dataclass
from paper_toolbox import Observer, hookimpl, param

@dataclass(frozen=True, kw_only=True)
class Bell(Observer):
    figure: str = param("accuracy", "which one rings")

    @contextmanager
    def watch(self, run):
        with (run.folder / "bell.txt").open("a") as file:
            yield lambda step, figures: self.figure in figures and print(step, figures[self.figure], file=file)

@hookimpl
def observer():
    return {"guest_bell": Bell}
"""
RECIPE = """
data: wine
model: mlp?hidden=8
epochs: 2
device: cpu
plugins:
- {observer: guest_bell, fields: {every: 1000}}
- {observer: csv}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A recipe that names the guest, which is installed."""
    guest = tmp_path / "guest"
    guest.mkdir()
    (guest / "pyproject.toml").write_text(PYPROJECT)
    (guest / "guest_bell.py").write_text(SOURCE)
    stage(guest, tmp_path / "staged")
    for place in (guest, tmp_path / "staged"):
        monkeypatch.syspath_prepend(str(place))
    importlib.invalidate_caches()
    catalog.cards.cache_clear()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    yield tmp_path / "recipe.yaml"
    catalog.cards.cache_clear()
    sys.modules.pop("guest_bell", None)


def run(recipe: Path, *sets: str) -> Artifact:
    chosen = assemble(Host(), read_file(recipe), (), sets, {})
    return train(chosen, recipe.parent / "run", Host(), show=Silent())


def test_it_watches_beside_another(recipe: Path) -> None:
    done = run(recipe)
    told = [line.split() for line in (done.folder / "bell.txt").read_text().splitlines()]
    assert [(int(step), float(value)) for step, value in told] == [(r["step"], r["accuracy"]) for r in done.history()]
    assert (done.folder / "steps.csv").exists()
    assert [choice.name for choice in done.recipe.plugins] == ["guest_bell", "csv"]


def test_its_fields_are_checked(recipe: Path) -> None:
    with pytest.raises(ParamError, match=r"guest_bell\.every = '0': must be greater than or equal to 1"):
        run(recipe, "guest_bell.every=0")


def test_its_fault_is_its_own(recipe: Path) -> None:
    (recipe.parent / "guest" / "guest_bell.py").write_text(SOURCE.replace("self.figure in figures", "1 in 1"))
    with pytest.raises(
        PluginError, match=r"^paper-toolbox-guest-bell 2\.0: observer guest_bell failed: TypeError: .*int"
    ):
        run(recipe)
