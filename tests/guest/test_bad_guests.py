"""A guest that does not keep its contract harms only those who ask for it, and is named."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paper_toolbox import catalog
from paper_toolbox.errors import PluginError
from paper_toolbox.host import Host

Install = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``installed(package, source, kind={name: module})`` puts a package on the path, as pip would."""
    before = set(sys.modules)

    def install(package: str, source: str, version: str = "1.0", **announced: dict[str, str]) -> Path:
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {package}\nVersion: {version}\nSummary: A guest\n"
        )
        groups = [
            f"[paper_toolbox.{kind}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
            for kind, entries in announced.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups))
        for module in {module for entries in announced.values() for module in entries.values()}:
            (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        catalog.cards.cache_clear()
        return folder

    yield install
    catalog.cards.cache_clear()
    for module in set(sys.modules) - before:
        if module.startswith("bad_guest"):
            del sys.modules[module]


LOSS = """
from dataclasses import dataclass
from paper_toolbox import Loss, hookimpl

@dataclass(frozen=True, kw_only=True)
class Bad(Loss):
    def __call__(self, logits, targets):
        return logits.mean()

@hookimpl
def loss():
    return {hook}
"""


def ask(name: str = "bad") -> None:
    Host().method(name, "loss")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no licence')", r"bad-guest 1\.0 fails to import: RuntimeError: no licence"),
        ("import a_package_that_is_not_there", r"bad-guest 1\.0 fails to import: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)", r"bad-guest 1\.0 fails to import: SystemExit"),
        ("def f(:", r"bad-guest 1\.0 fails to import: SyntaxError"),
        ("x = 1", "bad-guest announces loss 'bad' but its hook does not return it"),
        (LOSS.format(hook="{'other': Bad}"), "bad-guest announces loss 'bad' but its hook does not return it"),
        (LOSS.format(hook="[Bad]"), "bad-guest: hook loss must return a dict, not list"),
        (LOSS.format(hook="{'bad': 3}"), "bad-guest: loss 'bad' is not a Loss class"),
        (LOSS.format(hook="{'bad': dict}"), "bad-guest: loss 'bad' is not a Loss class"),
        (LOSS.format(hook="{'bad': 1 / 0}"), r"bad-guest 1\.0: its hook loss fails: ZeroDivisionError"),
        (LOSS.format(hook="{'bad': Bad}").replace("def loss()", "def loss(task)"), r"bad-guest 1\.0: .*task"),
        (LOSS.format(hook="{'bad': Bad}").replace("def loss()", "def losses()"), r"bad-guest 1\.0: .*losses"),
    ],
)
def test_it_is_listed_and_only_asking_for_it_fails(installed: Install, source: str, said: str) -> None:
    installed("bad-guest", source, loss={"bad": "bad_guest"})
    assert any(card.package == "bad-guest" and card.name == "bad" for card in catalog.cards())
    assert Host().method("cross_entropy").__name__ == "CrossEntropy"
    with pytest.raises(PluginError, match=said) as caught:
        ask()
    assert caught.value.exit_status == 4
    assert "\n" not in str(caught.value)
    with pytest.raises(PluginError, match=said):
        ask()  # a second time it is the same, not a half-loaded plugin


def test_two_packages_with_one_name(installed: Install) -> None:
    for letter in "ab":
        installed(f"bad-guest-{letter}", LOSS.format(hook="{'bad': Bad}"), loss={"bad": f"bad_guest_{letter}"})
    with pytest.raises(PluginError, match=r"bad-guest-a 1\.0 and bad-guest-b 1\.0 both offer loss 'bad'"):
        ask()


def test_a_guest_may_not_take_the_name_of_a_built_in_method(installed: Install) -> None:
    installed("bad-guest", LOSS.format(hook="{'cross_entropy': Bad}"), loss={"cross_entropy": "bad_guest"})
    with pytest.raises(PluginError, match=r"bad-guest 1\.0 and paper-toolbox-cross-entropy .* both offer"):
        ask("cross_entropy")


def test_the_command_line_lists_it_and_ends_with_4_when_asked(installed: Install) -> None:
    folder = installed("bad-guest", "raise RuntimeError('no licence')", loss={"bad": "bad_guest"})
    environment = {**os.environ, "PYTHONPATH": str(folder)}

    def toolbox(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "paper_toolbox_cli", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    listed = toolbox("list", "loss", "--json")
    assert listed.returncode == 0
    assert "bad" in {row["name"] for row in json.loads(listed.stdout)}
    asked = toolbox("train", "--plugin", "bad", "--epochs", "1", "--out", str(folder / "run"))
    assert asked.returncode == 4
    assert asked.stderr.strip().count("\n") == 0
    assert "bad-guest 1.0 fails to import: RuntimeError: no licence" in asked.stderr
    assert not Path(folder / "run").exists()


def test_a_package_of_another_program_is_no_concern(installed: Install) -> None:
    folder = installed("bad-guest", "", loss={"bad": "bad_guest"})
    (folder / "bad_guest-1.0.dist-info" / "entry_points.txt").write_bytes(b"[console_scripts]\n\xff = x\n")
    catalog.cards.cache_clear()
    assert not any(card.package == "bad-guest" for card in catalog.cards())
