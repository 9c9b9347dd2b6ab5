"""A combination of installed methods, really trained: two epochs of something tiny."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from ... import catalog
from ...errors import PluginError
from ...host import Host
from ...recipe import Recipe, assemble
from ..loop.fit import Fit
from ..progress import Silent
from ..why import Why
from .case import Finding
from .tiny import MODEL, SOURCES

LARGEST = 0.1  # step size: what larger ones are meant for, other models and other data, is not looked at
FLAGS = {"model": MODEL, "epochs": 2, "batch_size": 32, "device": "cpu", "keep": "last"}


class Rehearsal:
    """Trains one combination after the other; they share the host and the opened data."""

    def __init__(self) -> None:
        self.host = Host()
        self.opened: dict[str, Any] = {}

    def train(self, levels: Sequence[str]) -> Sequence[Finding]:
        """``levels`` are methods and settings such as ``accumulate=2``; what their user should be careful about.

        What a rule refuses is a ``Conflict``; what does not train behind that, a ``PluginError``.
        """
        sets = [level for level in levels if "=" in level]
        names = [level for level in levels if "=" not in level]
        data = SOURCES[self._kind(names)]
        chosen = assemble(self.host, None, names, sets, {**FLAGS, "data": data})
        asked = Why(calmed(chosen), self.host, given=True)
        asked.opened = self.opened
        session = asked.session(names)
        before = [p.detach().clone() for p in session.model.parameters()]
        loss = Fit(session, None, Silent()).run()["train_loss"]
        if not math.isfinite(loss):
            raise PluginError(f"{' + '.join(levels)}: the loss became {loss}")
        if all(torch.equal(p, old) for p, old in zip(session.model.parameters(), before, strict=True)):
            raise PluginError(f"{' + '.join(levels)}: two epochs changed no weight")
        return session.notes

    def _kind(self, names: Sequence[str]) -> str:
        """Classes suit every loss but those for values."""
        cards = [catalog.find(name) for name in names]
        tasks = [self.host.method_of(card).tasks for card in cards if card.kind == "loss"]
        return "classification" if all("classification" in own for own in tasks) else "regression"


def calmed(recipe: Recipe) -> Recipe:
    """``recipe`` with step sizes of ``LARGEST`` at most."""
    slow = [
        dataclasses.replace(c, fields={**c.fields, "lr": min(c.fields["lr"], LARGEST)}) if c.fields.get("lr") else c
        for c in recipe.plugins
    ]
    return dataclasses.replace(recipe, plugins=tuple(slow))
