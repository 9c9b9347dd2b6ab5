"""What a verb asks for by its keyword-only parameters."""

from __future__ import annotations

import re
from typing import Any

import pytest
from paper_toolbox import needs
from paper_toolbox.errors import NeedError, PluginError


def verb(model: Any, *, batches: Any, teacher: Any = None) -> tuple[Any, Any]:
    return batches, teacher


def test_it_asks_for_what_stands_behind_the_star() -> None:
    assert needs.of(verb) == {"batches": True, "teacher": False}


def test_it_gets_only_what_it_asks_for() -> None:
    assert needs.supply(verb, {"batches": 1, "loss": 2}) == {"batches": 1}
    assert needs.supply(verb, {"batches": 1, "teacher": 3}) == {"batches": 1, "teacher": 3}


def test_what_is_missing_is_said_with_its_meaning_before_the_run() -> None:
    with pytest.raises(NeedError, match=re.escape("wanda needs batches (re-iterable of (inputs, targets)")):
        needs.check(verb, {"teacher"}, "wanda")


def test_a_missing_teacher_says_how_to_name_one() -> None:
    def loss(logits: Any, targets: Any, *, teacher_logits: Any, teacher_features: Any) -> None: ...

    with pytest.raises(NeedError) as caught:
        needs.check(loss, (), "sinkd")
    assert str(caught.value).count("--teacher RUN") == 1
    assert "teacher_features" in str(caught.value)


def test_a_need_that_nobody_knows_is_the_plugins_fault() -> None:
    def loss(logits: Any, *, mood: Any) -> None: ...

    with pytest.raises(PluginError, match=r"loss asks for mood; known: features, teacher_logits") as caught:
        needs.of(loss)
    assert caught.value.exit_status == 4


def test_every_hint_belongs_to_a_need() -> None:
    assert needs.HINTS.keys() <= needs.MEANING.keys()


class Above:
    def build(self, params: Any, *, model: Any = None, engine: str = "eager", **rest: Any) -> None: ...


class Below(Above):
    def build(self, params: Any, *, model: Any, steps_total: int, **given: Any) -> None: ...


class Lowest(Below):
    def build(self, params: Any, *, step: int, **given: Any) -> None: ...


def test_an_overriding_verb_passes_on_what_the_one_above_asks_for() -> None:
    below = {"engine": False, "model": True, "steps_total": True}
    assert needs.of(Above().build) == {"model": False, "engine": False}
    assert needs.of(Below().build) == below
    assert needs.of(Lowest().build) == {**below, "step": True}
    assert needs.of(lambda x, **rest: x) == {}
