"""One fork's work: put an altered module in the place of the real one, run tests, and leave a note of what happened."""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

BLIND = {  # compare the altered formula with itself
    "test_engines_agree_and_share_checkpoints",
    "test_small_tensors_step_together_and_large_ones_in_pieces",
}
OPTIONS = ["-q", "--import-mode=importlib", "--assert=plain", "-m", "not slow", "--tb=line"]
for unneeded in ("cacheprovider", "unraisableexception", "threadexception", "xdist", "timeout"):
    OPTIONS += ["-p", f"no:{unneeded}"]
PROBE = "__ran__"


class Altered(SourceFileLoader):
    """Finds and loads one module, from ``text`` instead of its file; all else about it stays."""

    def __init__(self, file: Path, text: str) -> None:
        super().__init__(module_name(file), str(file))
        self.text = text

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As ``sys.meta_path`` asks."""
        folder = [str(Path(self.path).parent)] if Path(self.path).name == "__init__.py" else None
        own = name == self.name
        return spec_from_file_location(name, self.path, loader=self, submodule_search_locations=folder) if own else None

    def get_code(self, fullname: str) -> CodeType:
        """The altered text, compiled; line by line it is the file that tracebacks and ``inspect`` read."""
        code: CodeType = compile(self.text, self.path, "exec", dont_inherit=True)
        return code


class Probed(Altered):
    """Finds and loads one module as it is, but for a note that each statement leaves as it runs."""

    def __init__(self, file: Path, seen: set[tuple[str, int]]) -> None:
        super().__init__(file, file.read_text("utf-8"))
        setattr(builtins, PROBE, lambda file, line: seen.add((file, line)))

    def get_code(self, fullname: str) -> CodeType:
        """With a call in front of every statement of every function."""
        tree = ast.fix_missing_locations(Probes(self.path).visit(ast.parse(self.text)))
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code


class Probes(ast.NodeTransformer):
    """Puts ``PROBE(file, line)`` in front of every statement inside a function; a docstring stays the first."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.inside = 0

    def visit(self, node: ast.AST) -> Any:
        """A statement becomes two."""
        inside, self.inside = self.inside, self.inside + isinstance(node, ast.FunctionDef)
        self.generic_visit(node)
        self.inside = inside
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not inside or text or not isinstance(node, ast.stmt):
            return node
        note = ast.Call(ast.Name(PROBE, ast.Load()), [ast.Constant(self.file), ast.Constant(node.lineno)], [])
        return [ast.copy_location(ast.Expr(note), node), node]


def module_name(file: Path) -> str:
    """What ``file`` is imported as."""
    names = [] if file.name == "__init__.py" else [file.stem]
    while (file.parent / "__init__.py").is_file():
        file = file.parent
        names.insert(0, file.name)
    return ".".join(names)


class Watch:
    """A pytest plugin: the tests wanted, in the order wanted; which failed, how long each took, what lines it saw."""

    def __init__(self, wanted: Sequence[str] | None = None) -> None:
        self.wanted = wanted
        self.failed: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.ranks: dict[str, int] = {}
        self.lines: dict[str, list[tuple[str, int]]] = {}
        self.seen: set[tuple[str, int]] = set()
        self.shared: set[tuple[str, int]] = set()  #: by fixtures that several tests use

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what cannot tell mutants apart."""
        known = {item.nodeid: item for item in items if getattr(item, "originalname", "") not in BLIND}
        items[:] = [known[name] for name in (known if self.wanted is None else self.wanted) if name in known]
        self.ranks = {item.nodeid: _rank(item) for item in items}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """Which lines a test comes by; after a failure only the rest of the exact ones run."""
        self.seen.clear()
        result = yield
        self.lines[item.nodeid] = sorted(self.seen | self.shared)
        if self.failed and self.wanted is not None and (nextitem is None or self.ranks[nextitem.nodeid]):
            item.session.shouldstop = "caught"
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """What a shared fixture runs counts for every test after it."""
        before = set(self.seen)
        result = yield
        if fixturedef.scope != "function":
            self.shared |= self.seen - before
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Time, and failure."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.setdefault(report.nodeid, _last(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported."""
        if report.failed:
            self.failed[report.nodeid] = _last(report)


def _rank(item: pytest.Item) -> int:
    """Exact tests first, then oracles, then the plugin's own tests; those it inherits last."""
    if item.get_closest_marker("exact"):
        return 0
    code = getattr(getattr(item, "function", None), "__code__", None)
    return 1 if "oracle" in item.name else 2 if code and code.co_filename == str(item.path) else 3


def _last(report: pytest.TestReport | pytest.CollectReport) -> str:
    """One line of what pytest says."""
    crash = getattr(report.longrepr, "reprcrash", None)
    said = crash.message.strip().splitlines()[:1] if crash else str(report.longrepr).strip().splitlines()[-1:]
    return said[0][:500] if said else ""


def run_tests(files: Sequence[str], work: Path, note: Path, watch: Watch) -> None:
    """Run them in this process, quietly, and write what ``watch`` saw to ``note``; does not return."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    begun = time.monotonic()
    ini = work / "mutation.ini"
    places = ["-c", str(ini), "--rootdir", work.anchor, "--basetemp", str(note.with_suffix(".tmp"))]
    status = int(pytest.main([*OPTIONS, *places, *files], plugins=[watch]))
    seen = {"status": status, "all": time.monotonic() - begun, "modules": list(sys.modules)}
    told = {name: getattr(watch, name) for name in ("failed", "seconds", "ranks", "lines")}
    note.write_text(json.dumps(seen | told if watch.wanted is None else {"failed": watch.failed, "status": status}))
    os._exit(0)
