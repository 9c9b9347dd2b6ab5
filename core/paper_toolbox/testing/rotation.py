"""A pytest plugin for collections too large to test whole each time: ``-p paper_toolbox.testing.rotation --rotate N``.

Slow tests take turns: of the packages in ``plugins/`` one in N runs its own, and elsewhere a slow test runs with one in
N of its parameters. Which ones changes with every state of the checkout. Fast tests run always. What ``proof.json``
records was run in full.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rotate N``."""
    text = "run one in N of the slow tests (by package in plugins/, by parameters elsewhere), others in every state"
    parser.addoption("--rotate", type=int, default=1, metavar="N", help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests whose turn it is not."""
    root, share = config.rootpath, config.getoption("rotate")
    places = {item: _place(item, root) for item in items if item.get_closest_marker("slow")}
    members = defaultdict(set)
    for group, member in places.values():
        members[group].add(member)
    now = state(root)
    turns = {group: turn(own, share, now + group) for group, own in members.items()}
    out = {item for item, (group, member) in places.items() if member not in turns[group]}
    if out:
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]


def _place(item: pytest.Item, root: Path) -> tuple[str, str]:
    """Those with which a test takes turns, and its own place: packages, or the parameters of one test."""
    parts = item.path.relative_to(root).parts if item.path.is_relative_to(root) else ()
    if len(parts) > 2 and parts[0] == "plugins":
        return "plugins", parts[1]
    test, _, parameters = item.nodeid.partition("[")
    return test, parameters


def turn(homes: Iterable[str], share: int, state: str) -> set[str]:
    """One in ``share`` of ``homes``, rounded up, in an order that ``state`` decides."""
    order = sorted(homes, key=lambda home: hashlib.sha256((state + home).encode()).hexdigest())
    return set(order[: math.ceil(len(order) / share)])


def state(root: Path) -> str:
    """A hash of every module of core and of the plugins."""
    files = sorted([*root.glob("core/**/*.py"), *root.glob("plugins/*/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
