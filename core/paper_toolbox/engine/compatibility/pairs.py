"""Which installed methods go together: every pair really trains somewhere, or a rule refuses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import catalog
from ...errors import Conflict, PluginError, ToolboxError
from ...files import read_json, write_json, write_text
from ...host import Host
from ..progress import Show
from .covering import AND, NONE, THEN, Pair, levels_of, next_row, pairs_of, universe, whole
from .page import page
from .rehearsal import Rehearsal

SETTINGS = ("precision=bf16", "accumulate=2", "clip_norm=1.0")
Table = dict[str, Any]  #: slots, alone, refused, careful, rows


def slots(host: Host) -> dict[str, list[str]]:
    """The levels of every place that a run has for methods; normalizers and compressors come one behind another."""
    found: dict[str, list[str]] = {"optimizer": [], "criterion": [], "penalty": [], "normalizer": [], "compressor": []}
    for card in catalog.cards():
        kind = host.method_of(card).role if card.kind == "loss" else card.kind
        found.get(kind, []).append(card.name)
    places: dict[str, list[str]] = {}
    for kind, names in found.items():
        places[kind] = [f"{NONE}{kind}", *names]
        if kind in ("normalizer", "compressor"):
            places[f"{THEN}{kind}"] = ["", *names]
    return places | {"setting": [f"{NONE}setting", *SETTINGS]}


class Pairs:
    """Finds rows that cover all pairs, trains them, and keeps what was found."""

    def __init__(self, rehearsal: Rehearsal, kept: Table | None = None, anew: Sequence[str] = ()) -> None:
        """Of ``kept``, what has no part in ``anew`` and is still installed stays."""
        self.rehearsal, self.places = rehearsal, slots(rehearsal.host)
        known = {level for own in self.places.values() for level in own} - {*anew}
        old = kept or {"alone": {}, "refused": [], "careful": [], "rows": []}
        self.alone = {name: line for name, line in old["alone"].items() if name in known}
        self.refused, self.careful = (
            {(a, b): why for a, b, why in old[key] if {a, b} <= known} for key in ("refused", "careful")
        )
        self.rows = [row for row in old["rows"] if {*levels_of(row)} <= known]
        self.barred = {(self.places[kind][0], x) for kind in ("normalizer", "compressor") for x in self.places[kind]}
        for name in self.alone:
            self._without(name)

    def left(self) -> dict[Pair, None]:
        """The pairs that have not been trained, and that no rule has refused."""
        met = {pair for row in self.rows for pair in pairs_of(whole(row, self.places))}
        every = universe(self.places, {*self.barred, *self.refused})
        return {pair: None for pair in every if pair not in met}

    def train(self, show: Show) -> None:
        """Until none is left; a combination that fails in any other way than by a rule stops it."""
        left = self.left()
        total = len(left)
        show.start("training", total, 0, "pairs")
        try:
            while left:
                left = self._row(left)
                show.advance(total - len(left), lambda: self.rows[-1] if self.rows else "")
        finally:
            show.stop()

    def _row(self, left: dict[Pair, None]) -> dict[Pair, None]:
        row = next_row(self.places, left, {*self.barred, *self.refused})
        levels = [level for level in row if level and not level.startswith(NONE)]
        try:
            notes = self.rehearsal.train(levels)
        except Conflict as error:
            self._refuse(error, row)
            return self.left()
        except PluginError:
            raise
        except ToolboxError as error:
            raise PluginError(f"{AND.join(levels)}: {error}") from error
        self.rows.append(AND.join(levels))
        self.careful |= {pair: note.line for note in notes if (pair := meeting(note.about, row))}
        met = pairs_of(whole(self.rows[-1], self.places))
        return {pair: None for pair in left if pair not in met}

    def _refuse(self, error: Conflict, row: Sequence[str]) -> None:
        """By the pair that it is about, or the method that goes with nothing."""
        pair, mine = meeting(error.about, row), [level for level in row if level in error.about]
        if pair and pair not in self.refused:
            self.refused[pair] = str(error)
        elif len(mine) == 1 and not pair:
            self.alone[mine[0]] = str(error)
            self._without(mine[0])
        else:
            raise PluginError(f"{AND.join(row)}: {error}") from error

    def _without(self, name: str) -> None:
        self.places = {place: [x for x in own if x != name] for place, own in self.places.items()}

    def table(self) -> Table:
        """What pairs.json holds."""
        told = {key: [[*pair, why] for pair, why in getattr(self, key).items()] for key in ("refused", "careful")}
        return {"slots": self.places, "alone": self.alone, **told, "rows": self.rows}


def meeting(about: Sequence[str], row: Sequence[str]) -> Pair | None:
    """The two levels of ``row`` that ``about`` names, in the order of the row; a setting by its name alone."""
    found = [level for level in row if level and level.partition("=")[0] in about]
    return (found[0], found[1]) if len(found) == 2 else None


def write(folder: Path, names: Sequence[str], show: Show) -> Table:
    """pairs.md and pairs.json in ``folder``; with ``names`` theirs alone are trained, the others stay as they are."""
    file = folder / "pairs.json"
    pairs = Pairs(Rehearsal(), read_json(file) if names and file.is_file() else None, names)
    pairs.train(show)
    content = pairs.table()
    write_text(folder / "pairs.md", page(content))
    write_json(file, content)
    return content
