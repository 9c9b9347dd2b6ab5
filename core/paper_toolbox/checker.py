"""Does a plugin keep its contract? Its package, and each method in the suite of its kind, in their own process."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import Distribution, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import catalog
from .catalog import Card
from .errors import PluginError, ToolboxError
from .kinds import KINDS

CORE = "paper-toolbox-core"
PACKAGE = """from paper_toolbox.testing.plugin import PackageSuite


class TestPackage(PackageSuite):
    package = "{package}"
"""
METHOD = """import pytest
from paper_toolbox import method
from paper_toolbox.errors import ToolboxError
from paper_toolbox.testing.{kind} import {suite}

try:
    built = method("{name}", "{kind}")
except ToolboxError as error:
    pytest.skip(f"not tried: {{error}}", allow_module_level=True)


class TestConformance({suite}):
    method = built
"""


def check(target: str, *, limit: float = 300.0) -> dict[str, Any]:
    """The report on an installed method's package, or on a plugin folder; all of it within ``limit`` seconds.

    ``{"package", "version", "methods", "passed", "tests": [{"name", "outcome", "message"}], "warnings"}``
    """
    from .testing.process import run

    if importlib.util.find_spec("pytest") is None:
        raise ToolboxError(f"checking a plugin needs pytest: pip install '{CORE}[test]'")
    with TemporaryDirectory(prefix="toolbox-check-") as name:
        work = Path(name)
        found, roots = _locate(target, work)
        cards = [card for card in catalog.of(found) if card.kind in KINDS]
        package, version = found.metadata["Name"], found.version
        if not cards:
            raise PluginError(f"{package} announces no method: it has no entry point in a group paper_toolbox.<kind>")
        files = [*_written(cards, package, work), *_own_tests(cards, roots)]
        outcomes, warnings = run(files, [name, *roots], work, limit, package)
    passed = all(test["outcome"] != "failed" for test in outcomes)
    report = {"package": package, "version": version, "methods": [f"{card.kind}:{card.name}" for card in cards]}
    return {**report, "passed": passed, "tests": outcomes, "warnings": warnings}


def _locate(target: str, work: Path) -> tuple[Distribution, list[str]]:
    """The distribution of a method's name, or of a folder (staged in ``work``), and where the folder's modules are."""
    if os.sep in target or (Path(target) / "pyproject.toml").is_file():
        from .testing.package import roots, stage

        return stage(Path(target), work), roots(Path(target))
    return distribution(catalog.find(target).package), []


def _written(cards: list[Card], package: str, work: Path) -> list[Path]:
    """Test files: the package's checks, and each method in the suite of its kind where there is one."""
    files: list[Path] = []
    if package != CORE:  # core is not a plugin package: it only offers its own models
        files.append(_write(work / "test_package.py", PACKAGE.format(package=package)))
    for card in cards:
        if importlib.util.find_spec(f"{__package__}.testing.{card.kind}") is not None:
            text = METHOD.format(name=card.name, kind=card.kind, suite=f"{card.kind.capitalize()}Suite")
            files.append(_write(work / f"test_{card.kind}_{card.name}.py", text))
    return files


def _write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8")
    return file


def _own_tests(cards: list[Card], roots: list[str]) -> list[Path]:
    """The plugin's own test files: beside its pyproject, in a checkout or an editable installation."""
    folders = {Path(root) for root in roots}
    for module in {card.entry.module.partition(".")[0] for card in cards}:
        spec = None if roots else importlib.util.find_spec(module)
        if spec and spec.origin and (Path(spec.origin).parent / "pyproject.toml").is_file():
            folders.add(Path(spec.origin).parent)
    return sorted(file for folder in folders for file in folder.glob("test_*.py"))
