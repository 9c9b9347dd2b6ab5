"""Facts about the whole tree that a reader may rely on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paper_toolbox.testing.source import lengths, normal

ROOT = Path(__file__).parents[2]
KINDS_OF_FILE = {".py", ".md", ".toml", ".yaml", ".txt", ".sh", ""}
SKIPPED = {".git", ".venv", "demo", "runs", "dist", "build"}
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HACK" + ":", "WI" + "P")) + r"\b")
BARE = re.compile(r"#\s*(type:\s*ignore(?!\[)|noqa(?!: [A-Z]))")
MODULE_LINES = 240  # what stops a heap; 150 is the aim
FUNCTION_LINES = 30  # likewise; 25 is the aim


def texts() -> Iterator[tuple[Path, str]]:
    """(path, text) of the files that people wrote."""
    for file in sorted(ROOT.rglob("*")):
        inside = file.relative_to(ROOT)
        hidden = any(part in SKIPPED or (part.startswith(".") and part != ".ci") for part in inside.parts)
        if not hidden and "__pycache__" not in inside.parts and file.is_file() and file.suffix in KINDS_OF_FILE:
            yield inside, file.read_text("utf-8")


def projects() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every pyproject of a package in this tree, guests too."""
    for file in sorted([*ROOT.glob("c*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")]):
        yield file, tomllib.loads(file.read_text("utf-8"))["project"]


def pinned() -> dict[str, str]:
    """Version by name, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def _name(requirement: str) -> str:
    return normal(re.split(r"[^\w.-]", requirement)[0])


def test_nothing_is_left_unfinished() -> None:
    assert not [path for path, text in texts() if UNFINISHED.search(text)]


def test_exemptions_say_from_what() -> None:
    assert not [path for path, text in texts() if path.suffix == ".py" and BARE.search(text)]


def test_a_stranger_finds_every_room_of_the_engine() -> None:
    engine = ROOT / "core" / "paper_toolbox" / "engine"
    for told in (engine / "__init__.py", *engine.glob("*/__init__.py")):
        rooms = {file.parent.name for file in told.parent.glob("*/__init__.py")}
        files = {file.stem for file in told.parent.glob("*.py")} - {"__init__"}
        assert not (rooms | files) - {*re.findall(r"\w+", told.read_text("utf-8"))}, told


def test_no_heaps() -> None:
    heaps = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path, _ in texts() if path.stem in heaps or heaps & set(path.parts)]


@pytest.mark.parametrize("package", ["core/paper_toolbox", "cli/paper_toolbox_cli"])
def test_modules_and_functions_are_short(package: str) -> None:
    for file in sorted((ROOT / package).rglob("*.py")):
        lines = len(file.read_text("utf-8").splitlines())
        assert lines <= MODULE_LINES, f"{file.relative_to(ROOT)} has {lines} lines"
        functions = [line for line in lengths(file) if line.partition(" ")[0] != file.name]
        assert not [line for line in functions if int(line.partition(" has ")[2].split()[0]) > FUNCTION_LINES], file


def test_versions_are_pinned_in_one_place() -> None:
    for file, project in projects():
        assert not [r for r in project["dependencies"] if "==" in r.partition(";")[0]], file


def test_every_requirement_is_pinned() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    wanted = {_name(r) for group in groups.values() for r in group if isinstance(r, str)}
    wanted |= {
        _name(r) for _, project in projects() for r in project["dependencies"] if "darwin'" not in r or "!=" in r
    }
    missing = wanted - pinned().keys() - {"paper-toolbox-core", "paper-toolbox"}
    assert not missing, f"constraints.txt does not pin {', '.join(sorted(missing))}"


def test_all_packages_have_one_version() -> None:
    import paper_toolbox

    versions = {project["version"] for _, project in projects()}
    assert versions == {paper_toolbox.__version__}
    assert f"## {paper_toolbox.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
