"""A pytest plugin for collections too large to test whole each time: ``-p paper_toolbox.testing.rotation --rotate N``.

Slow tests take turns, others with every state of the checkout: of the packages in ``plugins/`` one in N runs its own;
elsewhere every second slow test of a file runs, with one in N of its parameters. Fast tests run always. What
``proof.json`` records was run in full.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rotate N``."""
    text = "slow tests take turns: those of one package in N, one in N of a test's parameters, half of a file's"
    parser.addoption("--rotate", type=int, default=1, metavar="N", help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests whose turn it is not."""
    root, share = config.rootpath, config.getoption("rotate")
    turns = {item: list(_turns(item, root, share)) for item in items if item.get_closest_marker("slow")}
    members = defaultdict(set)
    for each in turns.values():
        for group, member, one_in in each:
            members[group, one_in].add(member)
    now = state(root)
    drawn = {(group, one_in): turn(own, one_in, now + group) for (group, one_in), own in members.items()}
    out = {item for item, each in turns.items() if any(member not in drawn[group, n] for group, member, n in each)}
    if out:
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]


def _turns(item: pytest.Item, root: Path, share: int) -> Iterator[tuple[str, str, int]]:
    """Each group in which a test takes turns, its own place there, and one in how many of them runs."""
    parts = item.path.relative_to(root).parts if item.path.is_relative_to(root) else ()
    if len(parts) > 2 and parts[0] == "plugins":
        yield "plugins", parts[1], share
        return
    test, _, parameters = item.nodeid.partition("[")
    yield test.partition("::")[0], test, min(share, 2)
    yield test, parameters, share


def turn(homes: Iterable[str], share: int, state: str) -> set[str]:
    """One in ``share`` of ``homes``, rounded up, in an order that ``state`` decides."""
    order = sorted(homes, key=lambda home: hashlib.sha256((state + home).encode()).hexdigest())
    return set(order[: math.ceil(len(order) / share)])


def state(root: Path) -> str:
    """A hash of every module of core and of the plugins."""
    files = sorted([*root.glob("core/**/*.py"), *root.glob("plugins/*/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
