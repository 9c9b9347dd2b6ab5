"""What is installed, read from package metadata alone: no plugin is imported here."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import PluginError, UnknownMethod
from .kinds import KINDS, PREFIX
from .proof import tier_of

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUPS = (*KINDS, "opener")


@dataclass(frozen=True)
class Card:
    """One method of one installed plugin; ``fields`` come from the tables of the plugin's README."""

    name: str
    kind: str
    package: str
    version: str
    summary: str
    keywords: tuple[str, ...]
    urls: dict[str, str]
    entry: EntryPoint = field(repr=False)
    readme: str = field(repr=False)

    @property
    def tier(self) -> str:
        """What it has proved: bronze, silver, gold or platinum; empty without a proof."""
        return tier_of(self.readme)

    def fields(self) -> list[tuple[str, str, str, str]]:
        """(name, default, bounds, meaning) of each hyper-parameter, in order."""
        return field_rows(self.readme, self.name)


def field_rows(readme: str, name: str) -> list[tuple[str, str, str, str]]:
    """The rows of the table headed by ``name`` in a card: (field, default, bounds, meaning)."""
    table = re.search(rf"^\| `{re.escape(name)}` \|.*\n\|[-| ]+\n((?:\|.*\n?)*)", readme, re.MULTILINE)
    rows = (re.split(r"(?<!\\)\|", line)[1:5] for line in (table[1].splitlines() if table else ()))
    return [tuple(cell.replace("\\|", "|").strip().strip("`") for cell in row) for row in rows]  # type: ignore[misc]  # four cells


@functools.cache
def cards() -> tuple[Card, ...]:
    """Every announced method, sorted by kind and name; read once per process."""
    return tuple(sorted(_read(), key=lambda c: (GROUPS.index(c.kind), c.name)))


def _read() -> Iterator[Card]:
    from importlib.metadata import distributions  # here: half of the time that importing the toolbox would take

    seen = set()
    for dist in distributions():
        found = list(of(dist))
        if not found or found[0].package in seen:  # an earlier path entry wins, as it does for imports
            continue
        seen.add(found[0].package)
        yield from found


def of(dist: Distribution) -> Iterator[Card]:
    """The cards of one distribution, in the order of its entry points."""
    if PREFIX not in _text(dist, "entry_points.txt"):
        return
    headers, readme = _metadata(dist)
    package, version = headers["name"][0], headers["version"][0]
    urls = dict(_pair(url) for url in headers.get("project-url", []))
    summary = headers.get("summary", [""])[0]
    lines = dict(re.findall(r"^- `(\w+)`: (.+)$", readme, re.MULTILINE))  # a package of many may say each one's idea
    keywords = tuple(k.strip() for k in headers.get("keywords", [""])[0].split(",") if k.strip())
    for entry in dist.entry_points:
        kind = entry.group.removeprefix(PREFIX)
        if entry.group.startswith(PREFIX) and kind in GROUPS:
            idea = lines.get(entry.name, summary)
            yield Card(entry.name, kind, package, version, idea, keywords, urls, entry, readme)


def _metadata(dist: Distribution) -> tuple[dict[str, list[str]], str]:
    """Headers by lower-case name, and the long description: a reader ten times lighter than the email package."""
    head, _, body = (_text(dist, "METADATA") or _text(dist, "PKG-INFO")).partition("\n\n")
    headers: dict[str, list[str]] = {}
    for line in head.splitlines():
        name, colon, value = line.partition(": ")
        if colon and not line[0].isspace():
            headers.setdefault(name.lower(), []).append(value)
    return {"name": ["unknown"], "version": ["0"], **headers}, body


def _text(dist: Distribution, name: str) -> str:
    try:
        return dist.read_text(name) or ""
    except (OSError, UnicodeDecodeError):  # whatever else is installed must not break the list
        return ""


def _pair(url: str) -> tuple[str, str]:
    label, _, address = url.partition(", ")
    return label, address


def find(name: str, kind: str | None = None) -> Card:
    """The card of one method, by ``name`` or ``kind:name``; a near miss is suggested."""
    asked = name
    if ":" in name and kind is None:
        kind, _, name = name.partition(":")
    if kind is not None and kind not in GROUPS:
        raise UnknownMethod(f"there is no kind {kind!r}; kinds are {', '.join(KINDS)}")
    found = [card for card in cards() if card.name == name and kind in (None, card.kind)]
    if not found:
        raise UnknownMethod(_unknown(asked, name, kind))
    if len(found) > 1 and len({card.kind for card in found}) > 1:
        raise UnknownMethod(f"{name!r} is ambiguous: say {' or '.join(f'{c.kind}:{c.name}' for c in found)}")
    if len(found) > 1:
        both = " and ".join(sorted(f"{c.package} {c.version}" for c in found))
        raise PluginError(f"{both} both offer {found[0].kind} {name!r}: uninstall one of them")
    return found[0]


def _unknown(asked: str, name: str, kind: str | None) -> str:
    from . import registry

    known = {card.name for card in cards() if kind in (None, card.kind)}
    what = f"{kind} {name!r}" if kind else repr(asked)
    if package := registry.package_of(name, kind):
        return f"no installed plugin offers {what}; the registry knows it: pip install {package}"
    near = difflib.get_close_matches(name, known | registry.names(kind), n=1)
    return f"no installed plugin offers {what}" + (f"; did you mean {near[0]}?" if near else "; see `toolbox list`")
