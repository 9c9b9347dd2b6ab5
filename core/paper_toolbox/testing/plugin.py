"""What every plugin package must keep: metadata, hooks, declarations, card, imports."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest

from .. import catalog, needs
from ..errors import PluginError, ToolboxError
from ..kinds import KINDS, VERBS
from ..method import Method
from ..proof import BLOCK
from .card import fields_table, methods_of
from .source import imports, lengths, normal

HEADINGS = ["Formula", "Fields", "Use", "Asks for", "Evidence", "Source"]
CARD_LINES = 44  #: of what a person writes; tables and the proof come beside them


class PackageSuite:
    """A subclass names its distribution. Limits of length only warn: they are the house's, not the contract's."""

    package: str

    @functools.cached_property
    def distribution(self) -> Distribution:
        """What is installed, or staged, under the name ``package``."""
        return distribution(self.package)

    @functools.cached_property
    def cards(self) -> list[catalog.Card]:
        """The methods announced."""
        return [card for card in catalog.of(self.distribution) if card.kind in KINDS]

    @functools.cached_property
    def methods(self) -> list[tuple[str, type[Method]]]:
        """(name, class) of each announced method; what does not load is one failure, not one per check."""
        try:
            return methods_of(self.distribution)
        except PluginError as error:
            pytest.skip(f"not tried: {error}")

    def sources(self) -> list[Path]:
        """The files of the modules that the package's entry points name."""
        found: set[Path] = set()
        for module in {card.entry.module.partition(".")[0] for card in self.cards}:
            spec = importlib.util.find_spec(module)
            assert spec, f"{self.package} announces the module {module}, which it does not have"
            file = Path(spec.origin or "")
            found |= set(file.parent.rglob("*.py")) if file.name == "__init__.py" else {file}
        return sorted(found)

    def test_hooks_return_what_is_announced(self) -> None:
        assert self.cards, f"{self.package} announces no method: it has no entry point in a group paper_toolbox.<kind>"
        assert methods_of(self.distribution)

    def test_metadata_is_complete(self) -> None:
        headers = self.distribution.metadata
        wanted = {"Summary": "description", "Keywords": "keywords", "Requires-Python": "requires-python"}
        missing = [field for header, field in wanted.items() if not headers.get_all(header)]
        if not any(headers.get_all(licence) for licence in ("License-Expression", "License")):
            missing.append("license")
        url = "Documentation" if {card.kind for card in self.cards} == {"observer"} else "Paper"  # few loggers have one
        if not any(found.startswith(f"{url},") for found in headers.get_all("Project-URL") or []):
            missing.append(f"a URL named {url}")
        assert not missing, f"pyproject.toml of {self.package} lacks {', '.join(missing)}"

    def test_declarations_are_sound(self) -> None:
        _none(problem for name, cls in self.methods for problem in declarations(name, cls))

    def test_card_is_fresh(self, record_property: Callable[[str, Any], None]) -> None:
        readme = next((card.readme for card in self.cards), "")
        assert readme.startswith("# "), f"{self.package}: the card (README.md) must begin with a heading '# Name'"
        headings = re.findall(r"^## (.+?)\s*$", readme, re.MULTILINE)
        assert headings == HEADINGS, f"the card's headings are {headings}, and must be {HEADINGS}"
        stale = [name for name, cls in self.methods if fields_table(name, cls) not in readme]
        assert not stale, f"the fields of {', '.join(stale)} on the card are stale: write them with testing.card"
        if (lines := written_lines(readme)) > CARD_LINES:
            record_property("warning", f"the card has {lines} lines, and should have {CARD_LINES}")

    def test_imports_stay_within_the_contract(self) -> None:
        own = {card.entry.module.partition(".")[0] for card in self.cards}
        required = [re.split(r"[^\w.-]", line)[0] for line in self.distribution.requires or ()]
        declared = {"torch", *map(normal, required)}
        _none(problem for file in self.sources() for problem in imports(file, own, declared))

    def test_sources_are_short(self, record_property: Callable[[str, Any], None]) -> None:
        for file in self.sources():
            for long in lengths(file):
                record_property("warning", long)


def written_lines(readme: str) -> int:
    """The lines of a card without what is generated: the block of its proof, and the rows of its tables."""
    return sum(not line.startswith("|") for line in BLOCK.sub("", readme).splitlines())


def declarations(name: str, cls: type[Method]) -> Iterator[str]:
    """What is wrong with a method's class, beyond its kind."""
    parameters = cls.__dict__.get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        yield f"{name}: {cls.__name__} must be decorated with @dataclass(frozen=True, kw_only=True)"
        return
    if inspect.isabstract(cls):
        yield f"{name}: {cls.__name__} lacks {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}"
        return
    yield from (f"{name}.{f.name} has no line of meaning: use param(...)" for f in cls.fields() if not f.doc)
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    yield from (f"{name}.{field} has no default" for field in required)
    if required:
        return
    try:
        method = cls()
        needs.of(getattr(method, VERBS[next(kind for kind, base in KINDS.items() if issubclass(cls, base))]))
        again = cls.from_options(json.loads(json.dumps(method.options())))
    except (ToolboxError, TypeError, ValueError) as error:
        yield f"{name}: {error}"
        return
    if again != method:
        yield f"{name}: options() does not survive JSON: {method} becomes {again}"


def _none(problems: Iterator[str]) -> None:
    found = list(problems)
    assert not found, "\n".join(found)
