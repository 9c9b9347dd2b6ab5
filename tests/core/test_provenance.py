"""The record of what a run was made with: code that was changed in place shows, however it is installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from paper_toolbox.provenance import again, changes, code_of, provenance
from paper_toolbox.recipe import Choice


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules are found."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    importlib.invalidate_caches()


def test_of_a_module(place: Path) -> None:
    write(place, "one_file.py", "a = 1\n")
    write(place, "neighbour.py", "b = 1\n")
    before = code_of("one_file")
    write(place, "neighbour.py", "b = 2\n")
    assert code_of("one_file") == before != ""
    write(place, "one_file.py", "a = 2\n")
    assert code_of("one_file") != before
    assert "one_file" not in sys.modules, "it is read, not run"


def test_of_a_package_with_several_files(place: Path) -> None:
    write(place, "several/__init__.py", "")
    write(place, "several/inner/mathematics.py", "a = 1\n")
    write(place, "several/table.json", "[1]")
    whole = code_of("several")
    assert code_of("several.inner.mathematics") == whole, "all of the package counts, whichever part is announced"
    write(place, "several/__pycache__/mathematics.pyc", "x")
    write(place, "several/.cache/x", "x")
    assert code_of("several") == whole
    for name in ("several/inner/mathematics.py", "several/table.json", "several/new.py"):
        write(place, name, "2")
        assert code_of("several") != whole
        whole = code_of("several")
    (place / "several/new.py").rename(place / "several/other.py")
    assert code_of("several") != whole, "names count"


def test_of_a_namespace_and_of_nothing(place: Path) -> None:
    """Packages that share a namespace do not count for each other."""
    write(place, "shared_space/mine/__init__.py", "a = 1\n")
    write(place, "shared_space/theirs/__init__.py", "")
    before = code_of("shared_space.mine")
    write(place, "shared_space/theirs/__init__.py", "b = 1\n")
    assert code_of("shared_space.mine") == before != ""
    assert code_of("no_such_module_anywhere") == ""


def test_a_copy_elsewhere_has_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed from a wheel, or as an editable folder."""
    hashes = []
    for folder in (tmp_path / "editable", tmp_path / "site-packages"):
        write(folder, "copied/__init__.py", "a = 1\n")
        with monkeypatch.context() as patched:
            patched.syspath_prepend(folder)
            hashes.append(code_of("copied"))
    assert hashes[0] == hashes[1] != ""


def test_what_changed_is_said_once() -> None:
    now = provenance([Choice("optimizer", "adamp"), Choice("optimizer", "sgdp"), Choice("loss", "max_sup")])
    assert again(now) == now
    assert changes(now, now) == []
    otherwise = [{**row, "code_sha256": "0"} for row in now]
    assert changes(otherwise, now) == [
        "paper-toolbox-adamp 0.1.0 was changed since (its code is another)",
        "paper-toolbox-max-sup 0.1.0 was changed since (its code is another)",
    ]
    older = [{**row, "version": "0.0.9"} for row in otherwise[2:]]
    assert changes(older, now) == ["paper-toolbox-max-sup was 0.0.9 and is 0.1.0"]
    unhashed = [{name: value for name, value in row.items() if name != "code_sha256"} for row in now]
    assert changes(unhashed, now) == [], "records of earlier versions tell no code"
