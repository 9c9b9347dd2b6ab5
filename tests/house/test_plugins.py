"""Every plugin of this repository: one shape, a proof, a fresh card; no other file had to know of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from paper_toolbox import documents, proof
from paper_toolbox.testing.plugin import CARD_LINES, PackageSuite, written_lines
from paper_toolbox.testing.source import lengths

ROOT = Path(__file__).parents[2]
FOLDERS = documents.folders(ROOT)


@pytest.fixture(params=FOLDERS, ids=lambda folder: str(folder.name))
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def _project(folder: Path) -> dict[str, Any]:
    return dict(tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"])


class TestPackages(PackageSuite):
    @pytest.fixture(autouse=True)
    def _of(self, folder: Path) -> None:
        self.package = _project(folder)["name"]


def test_it_has_the_files_of_a_plugin(folder: Path) -> None:
    name = folder.name
    files = {file.name for file in folder.iterdir() if not file.name.startswith((".", "__pycache__"))}
    module = f"paper_toolbox_{name}"  # or a package of several, where one would be too long
    needed = {
        module if (folder / module).is_dir() else f"{module}.py",
        "pyproject.toml",
        "README.md",
        f"test_{name}.py",
    }
    proving = {f"oracle_{name}.py", f"peers_{name}.py", f"claim_{name}.py", proof.FILE, proof.PICTURE}
    assert needed <= files
    assert all(file in proving or file.startswith("test_") for file in files - needed), files


def test_it_is_silver_or_better(folder: Path) -> None:
    kept = proof.read(folder)
    assert kept, f"{folder.name} is not proved yet: run `make proof`"
    assert kept["tier"] in proof.TIERS[1:], f"{folder.name} is {kept['tier']}: {kept['lacks']}"


def test_the_pyproject_has_the_common_shape(folder: Path) -> None:
    text, project = (folder / "pyproject.toml").read_text("utf-8"), _project(folder)
    assert project["name"] == f"paper-toolbox-{folder.name.replace('_', '-')}"
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == ">=3.11"
    assert "paper-toolbox-core>=0.1,<1" in project["dependencies"]
    url = "Documentation" if "paper_toolbox.observer" in project["entry-points"] else "Paper"
    assert project["urls"][url].startswith("https://")
    assert all(group.startswith("paper_toolbox.") for group in project["entry-points"])
    modules = {module for entries in project["entry-points"].values() for module in entries.values()}
    assert modules == {f"paper_toolbox_{folder.name}"}
    assert text.startswith('[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n')


def test_it_is_short(folder: Path) -> None:
    module = folder / f"paper_toolbox_{folder.name}"
    sources = sorted(module.rglob("*.py")) if module.is_dir() else [module.with_suffix(".py")]
    assert not [long for file in sources for long in lengths(file)]
    card = (folder / "README.md").read_text("utf-8")
    further = card.count("| default | bounds | meaning |") - 1
    assert written_lines(card) <= CARD_LINES + 4 * max(0, further)  # each further method brings its table


def test_no_other_folder_names_it(folder: Path) -> None:
    """Deleting a plugin breaks no other plugin, and neither core nor the command line."""
    module = re.compile(rf"^\s*(from|import) paper_toolbox_{folder.name}\b", re.MULTILINE)
    places = [ROOT / "core", ROOT / "cli", *(other for other in FOLDERS if other != folder)]
    naming = [f for place in places for f in place.rglob("*.py") if module.search(f.read_text("utf-8"))]
    assert not naming


def test_the_registry_the_list_and_the_cards_are_fresh() -> None:
    assert documents.check(ROOT) == []
