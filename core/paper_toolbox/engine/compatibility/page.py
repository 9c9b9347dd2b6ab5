"""The table of pairs for people: how many of each two kinds were trained, and every exception with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations_with_replacement
from typing import Any

from .covering import NONE, THEN, Pair, pairs_of, whole

HEAD = """\
# Which methods go together

Written by `toolbox why --out docs`. {trained} pairs of methods, of a method and none of another kind, and of a method
and a setting were really trained: {runs} runs of two epochs on something tiny, with defaults and step sizes of 0.1 at
most, cover them all. The loss stayed finite and weights changed; whether a pair *helps* is for `toolbox compare` to
say. Rules refuse the {refused} others before anything is trained. `toolbox why A+B` says it of any combination, with
your own data and model.
"""
MATRIX = "In each cell: pairs trained, of these with care (c), and refused (r). On the diagonal: one behind the other."


def figures(content: dict[str, Any]) -> dict[str, int]:
    """How many pairs were trained, and in how many runs; how many are refused, or need care."""
    counts = {key: len(content[key]) for key in ("refused", "careful")}
    return {"trained": len(_trained(content)), "runs": len(content["rows"]), **counts}


def page(content: dict[str, Any]) -> str:
    """pairs.md of a pairs.json."""
    parts = [HEAD.format(**figures(content)), _matrix(content)]
    for title, key in (("Refused", "refused"), ("With care", "careful")):
        if content[key]:
            parts.append(f"## {title}\n\n| A | B | why |\n|---|---|---|\n{''.join(_reasons(content[key]))}")
    if content["alone"]:
        lines = "".join(f"- `{name}`: {why}\n" for name, why in content["alone"].items())
        parts.append(f"## Not in a training run\n\n{lines}")
    return "\n".join(parts)


def _trained(content: dict[str, Any]) -> set[Pair]:
    return {pair for row in content["rows"] for pair in pairs_of(whole(row, content["slots"]))}


def _matrix(content: dict[str, Any]) -> str:
    kinds = {place: own for place, own in content["slots"].items() if not place.startswith(THEN)}
    of = {level: kind for kind, own in kinds.items() for level in own}
    counts: dict[tuple[str, str], list[int]] = {}
    for i, pairs in enumerate((_trained(content), _pairs(content["careful"]), _pairs(content["refused"]))):
        for a, b in pairs:
            counts.setdefault((of[a], of[b]), [0, 0, 0])[i] += 1
    lines = ["| | " + " | ".join(f"{kind} ({_real(own)})" for kind, own in kinds.items()) + " |"]
    lines.append("|---" * (len(kinds) + 1) + "|")
    rows: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for a, b in combinations_with_replacement(kinds, 2):
        rows[a][b] = _cell(*counts.get((a, b), (0, 0, 0)))
    lines += ["| " + " | ".join([f"**{a}**", *(rows[a].get(b, "") for b in kinds)]) + " |" for a in kinds]
    return f"{MATRIX}\n\n" + "\n".join(lines) + "\n"


def _pairs(rows: Iterable[list[str]]) -> list[Pair]:
    return [(a, b) for a, b, _ in rows]


def _real(levels: list[str]) -> int:
    return sum(bool(level) and not level.startswith(NONE) for level in levels)


def _cell(trained: int, careful: int, refused: int) -> str:
    parts = [str(trained)] if trained else []
    parts += [f"{careful} c"] if careful else []
    return ", ".join([*parts, *([f"{refused} r"] if refused else [])])


def _reasons(rows: Iterable[list[str]]) -> Iterator[str]:
    """A row for each reason that differs by more than the names of the two."""
    seconds: dict[tuple[str, str], list[str]] = {}
    for a, b, why in rows:
        said = re.sub(rf"\b{re.escape(a)}\b", "A", re.sub(rf"\b{re.escape(b)}\b", "B", why))
        seconds.setdefault((b, said), []).append(a)
    firsts: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (b, said), names in seconds.items():
        firsts.setdefault((tuple(names), said), []).append(b)
    for (group, said), others in firsts.items():
        yield f"| {_names(group)} | {_names(others)} | {said} |\n"


def _names(names: Iterable[str]) -> str:
    return ", ".join(name if name.startswith(NONE) else f"`{name}`" for name in names)
