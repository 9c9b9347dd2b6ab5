"""What the source of a plugin says: its imports and its lengths, read without importing it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import paper_toolbox

CONTRACT = re.compile(r"paper_toolbox(\.kit(\..*)?|\.errors|\.task)?")
FILE_LINES, FUNCTION_LINES = 120, 25


def imports(file: Path, own: set[str], declared: set[str]) -> Iterator[str]:
    """Imports of ``file`` beyond the contract, the standard library, its ``own`` modules and ``declared`` packages."""
    packages = packages_distributions()
    for line, module in imported(file):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in own or CONTRACT.fullmatch(module):
            continue
        if top.startswith("paper_toolbox"):
            yield f"{file.name}:{line} imports {module}: plugins see paper_toolbox, its kit, errors and task alone"
        elif not declared & {normal(d) for d in packages.get(top, [top])}:
            yield f"{file.name}:{line} imports {module}, which its pyproject.toml does not declare"


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every absolute import, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == paper_toolbox.__name__:
            modules = [alias.name for alias in node.names if alias.name not in paper_toolbox.__all__]
            yield from ((node.lineno, f"{node.module}.{name}") for name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def lengths(file: Path) -> Iterator[str]:
    """Files and functions longer than the house builds; a function's signature does not count."""
    text = file.read_text("utf-8")
    if (size := len(text.splitlines())) > FILE_LINES:
        yield f"{file.name} has {size} lines, and should have {FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        size = (node.end_lineno or 0) - node.body[0].lineno + 1
        if size > FUNCTION_LINES:
            yield f"{file.name}:{node.lineno} {node.name} has {size} lines, and should have {FUNCTION_LINES}"


def normal(name: str) -> str:
    """The name of a distribution as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
