"""The tests that go the whole way: which suites have them, and the faults that they find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from paper_toolbox import method, param
from paper_toolbox.errors import PluginError
from paper_toolbox.host import Host
from paper_toolbox.kinds import Loss
from paper_toolbox.recipe import assemble
from paper_toolbox.testing import users_run
from paper_toolbox.testing.package import stage
from paper_toolbox.testing.two_processes import in_both, in_two_processes
from paper_toolbox.testing.whole_way import TrainsWholeWay
from torch import Tensor

FOLDER = """
[project]
name = "paper-toolbox-probe"
version = "0.1.0"
[project.entry-points."paper_toolbox.optimizer"]
{names}
"""
PROBE = """
import os
from dataclasses import dataclass
import torch
from paper_toolbox import Optimizer, hookimpl, param
from paper_toolbox.testing.whole_way import TrainsWholeWay

class Adam(torch.optim.Adam):
    def __init__(self, params, fault):
        super().__init__(params, lr=0.005)
        self.fault, self.count = fault, 0

    def step(self, closure=None):
        self.count += 1
        if self.fault == "forgets":  # how many steps it has made, which state_dict() does not tell
            for group in self.param_groups:
                group["lr"] = 0.005 / self.count**0.5
        if self.fault == "idles":
            return
        super().step(closure)
        if self.fault == "parts":
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(1 + 1e-3 * int(os.environ.get("RANK", 0)))

@dataclass(frozen=True, kw_only=True)
class Sound(Optimizer):
    fault = ""
    closure = "none"
    def build(self, params):
        return Adam(params, self.fault)

class Forgets(Sound):
    fault = "forgets"

class Idles(Sound):
    fault = "idles"

class Parts(Sound):
    fault = "parts"

@hookimpl
def optimizer():
    return {"sound": Sound, "forgets": Forgets, "idles": Idles, "parts": Parts}
"""
TEST = """
from paper_toolbox_probe import Forgets, Idles, Parts, Sound
from paper_toolbox.testing.whole_way import TrainsWholeWay

class Small(TrainsWholeWay):
    recipe = {"model": "mlp?hidden=16", "epochs": 2}

class TestSound(Small):
    method = Sound()

class TestForgets(Small):
    method = Forgets()

class TestIdles(Small):
    method = Idles()

class TestParts(Small):
    method = Parts()
"""


@pytest.mark.slow
def test_faults_are_found(tmp_path: Path) -> None:
    """A third party's package, staged and not installed: of each method exactly the test of its fault fails."""
    folder = tmp_path / "probe"
    folder.mkdir()
    names = "\n".join(f'{name} = "paper_toolbox_probe"' for name in ("sound", "forgets", "idles", "parts"))
    for name, text in {
        "pyproject.toml": FOLDER.format(names=names),
        "paper_toolbox_probe.py": PROBE,
        "test_probe.py": TEST,
        "pytest.ini": "[pytest]\nmarkers =\n    slow\n    whole_way\n",
    }.items():
        (folder / name).write_text(text, "utf-8")
    stage(folder, tmp_path / "staged")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'staged'}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", str(folder / "test_probe.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    failed = {line.split(" - ")[0].partition("::")[2] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {
        "TestForgets::test_whole_way_resumes_exactly",
        "TestIdles::test_whole_way_trains",
        "TestIdles::test_whole_way_in_two_processes",  # its skill is that of guessing, too
        "TestParts::test_whole_way_in_two_processes",
    }, done.stdout


@dataclass(frozen=True, kw_only=True)
class Mine(Loss):
    """No package announces it."""

    rate: float = param(0.5, "not used", low=0)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.mean()


class Others(Mine):
    """Another method."""


Define = Callable[..., Any]


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Defines one suite after another, as the import of a test module does."""
    module = ModuleType("test_of_a_plugin")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def add(name: str, base: type = TrainsWholeWay, **attributes: Any) -> Any:
        made = type(name, (base,), {"__module__": module.__name__, **attributes})
        setattr(module, name, made)
        return made

    return add


def whole(suite: Any) -> bool:
    """Whether its tests are collected: all of them or none."""
    found = [callable(getattr(suite, name)) for name in dir(suite) if name.startswith("test_whole_way_")]
    assert found
    assert len(set(found)) == 1
    return found[0]


def test_a_method_goes_the_whole_way_once(define: Define) -> None:
    assert whole(define("First", method=Mine()))
    assert not whole(define("Second", method=Mine(rate=1)))
    assert whole(define("Other", method=Others()))
    assert whole(define("Asked", method=Mine(), whole_way=True))


def test_a_suite_may_leave_it_to_a_later_one(define: Define) -> None:
    first = define("First", method=Mine(), whole_way=False)
    assert not whole(first)
    assert whole(define("Second", first, whole_way=None))
    assert whole(TrainsWholeWay)


def test_the_fields_of_the_suite_go_in_as_text(define: Define, tmp_path: Path) -> None:
    cls = type(method("adamp"))
    given = {"model": "mlp?hidden=4", "epochs": 1, "fields": {"lr": 0.003}, "sets": ["schedule=constant"]}
    suite = define("First", method=cls(lr=0.05, betas=(0.8, 0.9)), recipe=given)()
    recipe = users_run.recipe_of(suite, tmp_path)
    (choice,) = recipe.plugins
    assert (choice.kind, choice.name) == ("optimizer", "adamp")
    assert (choice.fields["lr"], choice.fields["betas"]) == (0.003, [0.8, 0.9])
    assert (recipe.training.epochs, recipe.training.schedule) == (1, "constant")


def test_a_method_that_nobody_announces_is_named() -> None:
    with pytest.raises(PluginError, match=r"no installed package announces Mine of .*: install the plugin first"):
        users_run.announced(Mine())


@pytest.mark.slow
def test_what_the_loss_leaves_out_does_not_stop_two_processes(tmp_path: Path) -> None:
    """Of a loss of embeddings alone the classifier gets no gradient."""
    sets = ["multi_similarity.ce_weight=0", "model=mlp?hidden=16", "epochs=1", "device=cpu"]
    ends = in_two_processes(assemble(Host(), None, ["multi_similarity"], sets, {}), tmp_path / "run")
    assert ends[0] == ends[1]
    assert "weights" in ends[0]


def fails_in_the_second() -> None:
    if os.environ["RANK"] == "1":
        raise RuntimeError("the second process is lost")


@pytest.mark.slow
def test_an_error_of_one_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where the processes find this module
    with pytest.raises(AssertionError, match="RuntimeError: the second process is lost"):
        in_both(fails_in_the_second, tmp_path / "work")


@pytest.mark.slow
def test_the_process_that_is_refused_says_why(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("epochs: 1")
    recipe = assemble(Host(), None, [], ["model=mlp?hidden=16", "epochs=1"], {})
    first, second = in_two_processes(recipe, tmp_path / "run")
    assert "already exists" in first["refused"]
    assert "see what that one said" in second["refused"]
