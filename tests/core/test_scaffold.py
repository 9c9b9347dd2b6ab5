"""What ``toolbox new`` writes is clean, whole and works, unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paper_toolbox import checker, prover, scaffold
from paper_toolbox.errors import ParamError, ToolboxError
from paper_toolbox.kinds import KINDS
from paper_toolbox.testing import card

ROOT = Path(__file__).parents[2]
WITH_ORACLE = ("optimizer", "normalizer", "loss", "compressor", "attributor", "diagnostic")
LONGEST = "a" * 17 + "_" + "b" * 18


def python(*words: str, where: Path) -> None:
    done = subprocess.run([sys.executable, *words], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["my_method", "x", LONGEST])
def test_every_kind_is_clean(name: str, tmp_path: Path) -> None:
    for kind in KINDS:
        files = scaffold.new(name, kind, tmp_path / kind)
        assert {file.name for file in files} == {
            f"paper_toolbox_{name}.py",
            "pyproject.toml",
            "README.md",
            f"test_{name}.py",
            *([f"oracle_{name}.py"] if kind in WITH_ORACLE else []),
        }
        assert not [file for file in files if "$" in file.read_text("utf-8")]
    settings = ("--no-cache", "--config", str(ROOT / "pyproject.toml"), str(tmp_path))
    python("-m", "ruff", "check", *settings, where=ROOT)
    python("-m", "ruff", "format", "--check", *settings, where=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_the_checks_and_its_own_tests(kind: str, tmp_path: Path) -> None:
    folder = scaffold.new("my_method", kind, tmp_path)[0].parent
    report = checker.check(str(folder), whole_way=False)
    assert report["passed"], [test for test in report["tests"] if test["outcome"] == "failed"]
    assert report["warnings"] == []
    assert card.write(folder, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["optimizer", "normalizer", "loss", "compressor", "attributor", "diagnostic"])
def test_it_is_born_with_its_proof(kind: str, tmp_path: Path) -> None:
    found, _ = prover.prove(str(scaffold.new("my_method", kind, tmp_path)[0].parent), mutants=True)
    assert found["tier"] == "gold", (found["lacks"], found["mutants"])


@pytest.mark.slow
def test_the_types_are_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [scaffold.new(f"my_{kind}", kind, tmp_path)[0].parent for kind in KINDS]
    monkeypatch.setenv("MYPYPATH", os.pathsep.join(map(str, folders)))
    python("-m", "mypy", "--strict", "--explicit-package-bases", *map(str, folders), where=tmp_path)


@pytest.mark.slow
def test_it_installs_with_pip_and_is_found(tmp_path: Path) -> None:
    folder, site = scaffold.new("my_method", "loss", tmp_path)[0].parent, tmp_path / "site"
    alone = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    python("-m", "pip", "install", *alone, str(folder), where=tmp_path)
    use = f"import sys; sys.path.insert(0, {str(site)!r}); import paper_toolbox as pt; print(pt.method('my_method'))"
    python("-c", use, where=tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("MyMethod", "loss", "'MyMethod' cannot name a method: it must be lower-case words"),
        ("my-method", "loss", "cannot name a method"),
        ("2fast", "loss", "cannot name a method"),
        ("class", "loss", "cannot name a method"),
        ("", "loss", "cannot name a method"),
        ("../escape", "loss", "cannot name a method"),
        ("a" * 37, "loss", "cannot name a method"),
        ("my_method", "lossy", "there is no kind 'lossy'; kinds are optimizer"),
        ("cross_entropy", "optimizer", "'cross_entropy' is offered by paper-toolbox-cross-entropy already"),
        ("core", "loss", "there is a package paper-toolbox-core already"),
        ("rule", "optimizer", "Rule is a class that the new plugin itself uses"),
    ],
)
def test_a_bad_name_is_refused(name: str, kind: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ParamError, match=said):
        scaffold.new(name, kind, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my_method").mkdir()
    with pytest.raises(ToolboxError, match="my_method exists already"):
        scaffold.new("my_method", "loss", tmp_path)
    assert not list((tmp_path / "my_method").iterdir())
