"""A pytest plugin for collections too large to test whole each time: ``-p paper_toolbox.testing.rotation --rotate N``.

Of the packages in ``plugins/``, only one in N runs its slow tests; which ones changes with every state of the checkout.
Their fast tests, and all tests elsewhere, run always. What ``proof.json`` records was run in full.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rotate N``."""
    text = "of the packages in plugins/, run the slow tests of one in N, of others in every state of the checkout"
    parser.addoption("--rotate", type=int, default=1, metavar="N", help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of the packages whose turn it is not."""
    root = config.rootpath
    homes = {item: _home(item, root) for item in items}
    turns = turn({home for home in homes.values() if home}, config.getoption("rotate"), state(root))
    out = [item for item in items if homes[item] and homes[item] not in turns and item.get_closest_marker("slow")]
    if out:
        config.hook.pytest_deselected(items=out)
        gone = set(out)
        items[:] = [item for item in items if item not in gone]


def _home(item: pytest.Item, root: Path) -> str:
    """The package in ``plugins/`` that a test belongs to; empty for tests elsewhere."""
    parts = item.path.relative_to(root).parts if item.path.is_relative_to(root) else ()
    return parts[1] if len(parts) > 2 and parts[0] == "plugins" else ""


def turn(homes: Iterable[str], share: int, state: str) -> set[str]:
    """One in ``share`` of ``homes``, rounded up, in an order that ``state`` decides."""
    order = sorted(homes, key=lambda home: hashlib.sha256((state + home).encode()).hexdigest())
    return set(order[: math.ceil(len(order) / share)])


def state(root: Path) -> str:
    """A hash of every module of core and of the plugins."""
    files = sorted([*root.glob("core/**/*.py"), *root.glob("plugins/*/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
