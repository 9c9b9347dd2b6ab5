"""Rows that cover every pair: few combinations in which each two levels meet at least once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

Pair = tuple[str, str]
Slots = Mapping[str, Sequence[str]]  # place -> its levels; the first one stands for none, "" for a place left out
NONE, THEN = "no ", "then "  # how a level that stands for none begins, and a place behind another of its kind
AND = " + "  # between the levels of a row written as text


def universe(slots: Slots, barred: Collection[Pair]) -> dict[Pair, None]:
    """Every pair of levels of two slots, in their order, but for the barred ones and levels beside themselves."""
    found: dict[Pair, None] = {}
    for first, second in combinations(slots.values(), 2):
        found |= dict.fromkeys((a, b) for a in first for b in second if a and b and a != b)
    return {pair: None for pair in found if pair not in barred}


def pairs_of(row: Iterable[str]) -> set[Pair]:
    """The pairs that meet in a row."""
    return {(a, b) for a, b in combinations(row, 2) if a and b}


def next_row(slots: Slots, left: Mapping[Pair, None], barred: Collection[Pair]) -> list[str]:
    """A row with the first pair of ``left`` and as many more as a greedy choice finds; no barred pair meets in it."""
    places, (a, b) = list(slots.values()), next(iter(left))
    first = next(i for i, levels in enumerate(places) if a in levels)
    second = next(i for i, levels in enumerate(places) if i > first and b in levels)
    row = {first: a, second: b}
    for i in sorted(range(len(places)), key=lambda i: -len(places[i])):
        if i in row:
            continue
        best, most = places[i][0], -1
        for level in places[i]:
            met = [(x, level) if place < i else (level, x) for place, x in row.items() if x and level]
            gain = sum(pair in left for pair in met)
            if gain > most and not any(pair in barred or pair[0] == pair[1] for pair in met):
                best, most = level, gain
        row[i] = best
    return [row[i] for i in range(len(places))]


def levels_of(text: str) -> list[str]:
    """The levels of a row written as text; none of an empty one."""
    return text.split(AND) if text else []


def whole(text: str, slots: Slots) -> list[str]:
    """The levels of a row written as text, with the one for none in every place that has no other."""
    given = levels_of(text)
    empty = [own[0] for place, own in slots.items() if not place.startswith(THEN) and not {*own} & {*given}]
    places = list(slots.values())
    return sorted([*given, *empty], key=lambda level: next(i for i, own in enumerate(places) if level in own))
