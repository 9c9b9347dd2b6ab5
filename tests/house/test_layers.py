"""Imports point one way only, inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "paper_toolbox"
# What each part may import, by the first name behind paper_toolbox; a part may always import itself.
CONTRACT = {"errors", "method", "kinds", "needs", "task"}
CATALOG = {*CONTRACT, "hookspecs", "registry", "proof", "catalog"}
HOST = {*CATALOG, "host"}
FILES = {*HOST, "files", "recipe", "provenance", "artifact"}
MAY = {
    "errors": set(),
    "task": set(),
    "method": {"errors"},
    "kinds": {"errors", "method"},
    "needs": {"errors", "method", "kinds"},
    "hookspecs": {"errors", "method", "kinds"},
    "registry": {"errors", "kinds"},
    "catalog": CATALOG,
    "host": HOST,
    "__init__": HOST,
    "files": {"errors"},
    "recipe": FILES,
    "provenance": FILES,
    "artifact": FILES,
    "scaffold": HOST,
    "proof": set(),
    "checker": {*HOST, "testing"},
    "prover": {*FILES, "checker", "testing"},
    "documents": {*FILES, "checker", "prover", "testing"},
    "prove_all": {*FILES, "prover", "documents"},
    "kit": CONTRACT,
    "models": {*CONTRACT, "kit", "hookspecs", ""},
    "observers": {*CONTRACT, "hookspecs", "files"},
    "testing": {*CONTRACT, "kit"},
    "engine": {*FILES, "kit", "models"},
}
# The checks of a plugin package read installed packages as the host does.
PACKAGE_CHECKS = {"card", "ledger", "page", "package", "plugin", "process", "report", "source"}
# The tests that go the whole way run the engine as a user does.
WHOLE_WAY = {"two_processes", "users_run", "whole_way"}


def imports(file: Path, package: str) -> Iterator[str]:
    """Every module of the toolbox that ``file`` imports, absolute; those for type checkers left out."""
    tree = ast.parse(file.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """The part of core that ``module`` names: ``paper_toolbox.kit.rule.Rule`` -> ``kit``; "" for core itself."""
    top, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    known = (CORE / f"{first}.py").is_file() or (CORE / first / "__init__.py").is_file()
    return None if top != "paper_toolbox" else first if first and known else ""


def _core_files() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


@pytest.mark.parametrize("file", _core_files(), ids=lambda file: str(file.relative_to(CORE)))
def test_core_imports_downwards(file: Path) -> None:
    inside = file.relative_to(CORE)
    part = inside.parts[0].removesuffix(".py")
    package = ".".join(["paper_toolbox", *inside.parts[:-1]])
    found = {other for module in imports(file, package) if (other := part_of(module)) is not None}
    allowed = MAY[part] | {part}
    if part == "testing" and file.stem in PACKAGE_CHECKS:
        allowed |= {*HOST, "files", ""}
    if part == "testing" and file.stem in WHOLE_WAY:
        allowed |= {*MAY["engine"], "engine"}
    assert found <= allowed, f"{inside} imports {', '.join(sorted(found - allowed))}"


def test_core_knows_no_command_line() -> None:
    for file in _core_files():
        assert not any(name.startswith(("paper_toolbox_cli", "typer")) for name in imports(file, "paper_toolbox")), file


def test_the_rule_sees_what_it_forbids(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from ..engine import train\nfrom . import host\nimport paper_toolbox.artifact\n")
    parts = {part_of(module) for module in imports(file, "paper_toolbox.kit")}
    assert {"engine", "artifact"} <= parts
