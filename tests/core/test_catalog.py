"""Cards are read from metadata; nothing is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paper_toolbox import catalog, registry
from paper_toolbox.errors import PluginError, UnknownMethod

METADATA = """Metadata-Version: 2.4
Name: {package}
Version: 2.0
Summary: A method: with a colon
Keywords: one,two words
Project-URL: Paper, https://example.org/paper, with a comma
Description-Content-Type: text/markdown

# Card

## Fields

| `one` | default | bounds | meaning |
|---|---|---|---|
| `lr` | `0.1` | ≥ 0 | step \\| size |
| `mode` | `a` |  | which |

| `one_more` | default | bounds | meaning |
|---|---|---|---|
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    catalog.cards.cache_clear()
    yield
    catalog.cards.cache_clear()


def install(place: Path, package: str, entries: str) -> None:
    info = place / f"{package.replace('-', '_')}-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA.format(package=package), "utf-8")
    (info / "entry_points.txt").write_text(entries)
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    install(tmp_path / "a", "x-one", "[paper_toolbox.loss]\none = nowhere\n[console_scripts]\nx = nowhere:main\n")
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_card_says_what_the_metadata_say() -> None:
    card = catalog.find("one")
    assert (card.kind, card.package, card.version, card.summary) == ("loss", "x-one", "2.0", "A method: with a colon")
    assert card.keywords == ("one", "two words")
    assert card.urls == {"Paper": "https://example.org/paper, with a comma"}
    assert card.fields() == [("lr", "0.1", "≥ 0", "step | size"), ("mode", "a", "", "which")]
    assert "nowhere" not in sys.modules


def test_a_name_of_two_kinds_must_be_said_in_full(place: Path) -> None:
    install(place / "b", "x-two", "[paper_toolbox.optimizer]\none = nowhere\n")
    with pytest.raises(UnknownMethod, match="'one' is ambiguous: say optimizer:one or loss:one"):
        catalog.find("one")
    assert catalog.find("loss:one").package == "x-one"
    assert catalog.find("one", "optimizer").package == "x-two"


def test_two_packages_with_one_method(place: Path) -> None:
    install(place / "b", "x-two", "[paper_toolbox.loss]\none = nowhere\n")
    with pytest.raises(PluginError, match=r"x-one 2\.0 and x-two 2\.0 both offer loss 'one': uninstall one of them"):
        catalog.find("one")


def test_the_same_package_twice_on_the_path_is_one(place: Path) -> None:
    install(place / "b", "x-one", "[paper_toolbox.loss]\none = elsewhere\n")
    assert catalog.find("one").entry.value == "elsewhere"


def test_an_unknown_group_is_left_alone(place: Path) -> None:
    install(place / "b", "x-two", "[paper_toolbox.telepathy]\none = nowhere\n")
    assert catalog.find("one").package == "x-one"


@pytest.mark.usefixtures("place")
def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownMethod, match=r"offers 'cross_entropi'; did you mean cross_entropy\?"):
        catalog.find("cross_entropi")
    with pytest.raises(UnknownMethod, match="there is no kind 'looss'; kinds are optimizer, "):
        catalog.find("looss:one")


def test_a_known_package_that_is_not_installed_gets_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "far_away", "kind": "loss", "package": "x-far-away", "summary": "", "paper": ""}
    monkeypatch.setattr(registry, "entries", lambda: (entry,))
    with pytest.raises(UnknownMethod, match="the registry knows it: pip install x-far-away"):
        catalog.find("far_away")
    with pytest.raises(UnknownMethod, match=r"did you mean far_away\?"):
        catalog.find("far_awya")


def test_cards_are_sorted_by_kind_and_name() -> None:
    keys = [(catalog.GROUPS.index(card.kind), card.name) for card in catalog.cards()]
    assert keys == sorted(keys)
