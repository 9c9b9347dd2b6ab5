"""``check`` finds what is wrong with a plugin, and says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paper_toolbox import checker, prover, scaffold
from paper_toolbox.errors import PluginError, UnknownMethod

SILENT = "paper_toolbox_probe.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new plugin without tests of its own; a diagnostic, whose suite is the shortest."""
    found = scaffold.new("probe", "diagnostic", tmp_path)[0].parent
    (found / "test_probe.py").unlink()
    return found


def edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), "utf-8")


def failures(folder: Path, limit: float = 60) -> dict[str, str]:
    report: dict[str, Any] = checker.check(str(folder), limit=limit, whole_way=False)
    failed = {test["name"]: test["message"] for test in report["tests"] if test["outcome"] == "failed"}
    assert report["passed"] is not bool(failed)
    return failed


def test_a_sound_package_passes(folder: Path) -> None:
    report = checker.check(str(folder), whole_way=False)
    assert report["passed"]
    assert (report["package"], report["version"]) == ("paper-toolbox-probe", "0.1.0")
    assert report["methods"] == ["diagnostic:probe"]
    assert sum(test["name"].startswith("package: ") for test in report["tests"]) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "where", "said"),
    [
        ("pyproject.toml", 'keywords = ["diagnostic"]\n', "", "metadata_is_complete", "lacks keywords"),
        ("pyproject.toml", "Paper =", "Home =", "metadata_is_complete", "lacks a URL named Paper"),
        ("README.md", "## Evidence", "## Proof", "card_is_fresh", "headings"),
        ("README.md", "| > 0 |", "| ≥ 0 |", "card_is_fresh", "the fields of probe on the card are stale"),
        (SILENT, "frozen=True, ", "", "hooks_return", "frozen"),
        (SILENT, '"the logits are divided by this first"', '""', "declarations_are_sound", "no line of meaning"),
        (SILENT, "param(1.0,", "param(0.0,", "declarations_are_sound", "must be greater than 0"),
        (SILENT, "batches: Iterable[Any])", "batches: Iterable[Any], *, mood: int)", "declarations_are_sound", "mood"),
        (SILENT, "import torch\n", "import torch\nimport yaml\n", "imports_stay", "imports yaml, which its pyproject"),
        (SILENT, "import torch\n", "import torch\nfrom paper_toolbox import engine\n", "imports_stay", "plugins see"),
        (SILENT, "import torch\n", "import torch\nimport paper_toolbox_sgd\n", "imports_stay", "paper_toolbox_sgd"),
        (SILENT, '"probe"', '"other"', "hooks_return", "its hook does not return it"),
        (SILENT, "import torch\n", "import torch\nraise OSError('gone')\n", "hooks_return", "OSError: gone"),
    ],
)
def test_a_fault_is_found_and_named(folder: Path, file: str, old: str, new: str, where: str, said: str) -> None:
    edit(folder, file, old, new)
    failed = failures(folder)
    assert [message for name, message in failed.items() if where in name and said in message], failed


@pytest.mark.slow
@pytest.mark.parametrize("where", ["import", "call"])
def test_a_plugin_that_hangs_is_cut_off_and_named(folder: Path, where: str) -> None:
    pause = "import time\ntime.sleep(600)\n"
    if where == "import":
        edit(folder, SILENT, "import torch\n", f"import torch\n{pause}")
    else:
        (folder / "test_probe.py").write_text("import time\n\n\ndef test_slow():\n    time.sleep(600)\n")
    ((name, message),) = failures(folder, limit=15 if where == "call" else 6).items()
    assert name == ("probe: slow" if where == "call" else "paper-toolbox-probe")
    assert "was cut off" in message
    assert (where == "import") == message.startswith("importing it: ")


def test_a_process_that_dies_is_a_failure(folder: Path) -> None:
    edit(folder, SILENT, "import torch\n", "import os\n\nimport torch\n\nos._exit(7)\n")
    ((_, message),) = failures(folder).items()
    assert "ended with status 7" in message


def test_a_file_too_long_only_warns(folder: Path) -> None:
    edit(folder, SILENT, "@hookimpl", "\n" * 100 + "@hookimpl")
    report = checker.check(str(folder), whole_way=False)
    assert report["passed"]
    assert report["warnings"] == ["paper_toolbox_probe.py has 140 lines, and should have 120"]


def test_the_plugins_own_suite_replaces_the_generic_one(tmp_path: Path) -> None:
    report = checker.check(str(scaffold.new("probe", "loss", tmp_path)[0].parent), whole_way=False)
    names = [test["name"] for test in report["tests"]]
    assert any(name.startswith("probe: ") for name in names)
    assert not any(name.startswith("loss_probe: ") for name in names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not a plugin folder: it has no pyproject.toml"),
        ("[project", "cannot be read"),
        ("[project]\nname = 'x'\n", "does not state version"),
        ("[project]\nname = 'x'\nversion = '1'\n", "x announces no method"),
    ],
)
def test_a_folder_that_is_no_plugin(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(PluginError, match=said):
        checker.check(str(tmp_path))


def test_an_unknown_name() -> None:
    with pytest.raises(UnknownMethod, match="no installed plugin offers 'nobody_has_this'"):
        checker.check("nobody_has_this")


def test_without_tests_of_its_own_it_is_bronze_at_most(folder: Path) -> None:
    found, report = prover.prove(str(folder), mutants=True)
    assert report["passed"]
    assert (found["tier"], found["next"], found["lacks"]) == ("bronze", "silver", ["it has no tests of its own"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "writes",
    ["open(PLACE, 'w')", "os.mkdir(PLACE)", "Path(PLACE).write_text('x')", "os.open(PLACE, os.O_CREAT | os.O_WRONLY)"],
)
def test_a_test_that_writes_outside_its_folder_fails(folder: Path, tmp_path: Path, writes: str) -> None:
    body = f"PLACE = {str(tmp_path / 'elsewhere')!r}\n\n\ndef test_it(tmp_path):\n    (tmp_path / 'in').touch()\n"
    text = f"import os\nfrom pathlib import Path\n\n{body}    {writes}\n"
    (folder / "test_probe.py").write_text(text)
    ((name, message),) = failures(folder).items()
    assert name == "probe: it"
    assert "outside its folder" in message
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("import paper_toolbox_probe\n", "imports paper_toolbox_probe"),
        ("from paper_toolbox.kit import precision\n", "imports paper_toolbox.kit"),
        ("import torch\n", "imports torch"),
        ("import importlib\n", "imports importlib"),
        ("x = __import__('torch')\n", "uses __import__"),
    ],
)
def test_an_oracle_that_leans_on_the_code_it_judges_is_refused(tmp_path: Path, head: str, said: str) -> None:
    folder = scaffold.new("probe", "loss", tmp_path)[0].parent
    oracle = folder / "oracle_probe.py"
    oracle.write_text(oracle.read_text("utf-8") + head, "utf-8")
    failed = failures(folder)
    assert [message for name, message in failed.items() if "oracle_is_independent" in name and said in message], failed
