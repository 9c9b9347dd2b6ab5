"""The way a user's run goes, for the method of a suite: train, resume, export, two processes.

The suites of the kinds inherit these classes; their tests are marked ``slow`` and ``whole_way``.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ..errors import Interrupted
from . import users_run


def whole_way(test: Any) -> Any:
    """Both marks."""
    return pytest.mark.slow(pytest.mark.whole_way(test))


class WholeWay:
    """Each method goes the whole way once: in the first suite of a module that tests it."""

    method: Any
    whole_way: ClassVar[bool | None] = None  #: None: unless an earlier class of the module tests the same method
    recipe: ClassVar[Mapping[str, Any]] = {}  #: settings of the run, ``plugins``, ``sets``, own ``fields``
    skill: ClassVar[float] = 0.3  #: how far from guessing (0) to perfect (1) the run must come

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if not hasattr(cls, "method"):  # the suite of a kind
            return
        on = _is_first(cls) if cls.whole_way is None else cls.whole_way
        for name, test in _tests(cls).items():
            if not on:
                setattr(cls, name, None)  # not collected, rather than skipped
            elif getattr(cls, name) is None:  # the class it comes from leaves it out
                setattr(cls, name, test)


def _tests(cls: type[WholeWay]) -> dict[str, Any]:
    """The tests of this module that ``cls`` inherits."""
    bases = [base for base in cls.__mro__ if base.__module__ == __name__]
    return {n: test for base in bases for n, test in vars(base).items() if n.startswith("test_whole_way_")}


def _is_first(cls: type[WholeWay]) -> bool:
    """Whether no earlier class of the module goes the whole way with the same method."""
    module = sys.modules.get(cls.__module__)
    before = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, WholeWay)] if module else []
    same = [c for c in before if hasattr(c, "method") and type(c.method) is type(cls.method)]
    return all(c.whole_way is False for c in same)


class TrainsWholeWay(WholeWay):
    """Of whatever is a part of training."""

    @whole_way
    def test_whole_way_trains(self, tmp_path: Path) -> None:
        run = users_run.trained(self, tmp_path)
        losses = [row["train_loss"] for row in run.history()]
        assert all(map(math.isfinite, losses))
        assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
        assert (found := users_run.skill(run)) >= self.skill, f"skill {found:.2f} of {self.skill}"

    @whole_way
    def test_whole_way_resumes_exactly(self, tmp_path: Path) -> None:
        """Stopped within the second epoch and resumed: the weights of a run that was never stopped, bit for bit."""
        from ..engine.progress import Silent
        from ..engine.train import train
        from ..files import sha256
        from ..host import Host
        from ..recipe import Recipe

        whole = users_run.trained(self, tmp_path)
        step = whole.history()[0]["step"] * 3 // 2
        with pytest.raises(Interrupted):
            train(whole.recipe, tmp_path / "cut", Host(), show=users_run.stop_at(step))
        resumed = train(Recipe(), tmp_path / "cut", Host(), resume=True, show=Silent())
        assert users_run.told(resumed) == users_run.told(whole)
        assert sha256(resumed.weights) == sha256(whole.weights), "resumed, a run ends with other weights"

    @whole_way
    def test_whole_way_in_two_processes(self, tmp_path: Path) -> None:
        """Both end with the same weights and leave one run folder, or both refuse the method by its name."""
        from ..artifact import Artifact
        from .two_processes import in_two_processes

        ends = in_two_processes(users_run.recipe_of(self, tmp_path), tmp_path / "run")
        if users_run.one_process_only(self.method):
            name = users_run.announced(self.method).name
            assert all(name in end.get("refused", "") for end in ends), f"{name} is not refused by name: {ends}"
            return
        assert "weights" in ends[0], f"refused: {ends[0]}"
        assert ends[0] == ends[1], "the two processes end with different weights"
        assert users_run.skill(Artifact.load(tmp_path / "run")) >= self.skill


class ExportsWholeWay(TrainsWholeWay):
    """Of whatever is a part of the trained model."""

    @whole_way
    def test_whole_way_exports(self, tmp_path: Path) -> None:
        users_run.check_export(users_run.trained(self, tmp_path), tmp_path / "model.onnx")


class CompressesWholeWay(WholeWay):
    """Of what makes a trained model smaller."""

    @whole_way
    def test_whole_way_compresses_and_exports(self, tmp_path: Path) -> None:
        from ..engine.data.parts import Batches
        from ..engine.loop.evaluate import evaluate
        from ..engine.loop.restore import load_data, load_model
        from ..host import Host

        small = users_run.compressed(self, users_run.plain(self, tmp_path), tmp_path / "small")
        assert json.loads((small.folder / "compress.json").read_text("utf-8"))["missed"] == []
        assert (found := users_run.skill(small)) >= self.skill, f"skill {found:.2f} of {self.skill}"
        model, data = load_model(small, Host()), load_data(small, Host())
        if small.structure["quantization"] is None:  # what integers answer, only their file can tell
            assert evaluate(model, Batches(data.validation, 256), small.task) == small.figures
        users_run.check_export(small, tmp_path / "model.onnx")


class ExplainsWholeWay(WholeWay):
    """Of what explains a trained model."""

    @whole_way
    def test_whole_way_explains(self, tmp_path: Path) -> None:
        from ..engine.attribute import attribute
        from ..host import Host

        run, choice = users_run.plain(self, tmp_path), users_run.choice_of(self)
        maps, figures = [], []
        for name in ("one", "two"):
            figures.append(attribute(run, choice, tmp_path / name, Host(), samples=3)["faithfulness"])
            written = {file.name for file in (tmp_path / name).iterdir()}
            assert written == {"attribution.png", "attribution.npz", "attribution.json"}
            maps.append(np.load(tmp_path / name / "attribution.npz")["attributions"])
        assert np.isfinite(maps[0]).all()
        assert np.abs(maps[0]).max() > 0
        assert np.array_equal(*maps), "a second time, the maps are others"
        assert figures[0] == figures[1], "a second time, the faithfulness figures are others"


class MeasuresWholeWay(WholeWay):
    """Of what measures a trained model."""

    @whole_way
    def test_whole_way_measures(self, tmp_path: Path) -> None:
        from ..engine.measure import measure
        from ..host import Host

        run, choice = users_run.plain(self, tmp_path), users_run.choice_of(self)
        found = measure(run, [choice], Host())[choice.name]
        assert json.loads(json.dumps(found, allow_nan=False)) == found == measure(run, [choice], Host())[choice.name]


class ObservesWholeWay(WholeWay):
    """Of what watches a training."""

    @whole_way
    def test_whole_way_changes_nothing_and_resumes(self, tmp_path: Path) -> None:
        """Watched, stopped and resumed: the weights of a run that nobody watched; each of its rows is there once."""
        from ..engine.progress import Silent
        from ..engine.train import train
        from ..files import sha256
        from ..host import Host
        from ..recipe import Recipe

        whole, chosen = users_run.plain(self, tmp_path), users_run.recipe_of(self, tmp_path)
        ends, metric = [row["step"] for row in whole.history()], whole.task.metric
        with pytest.raises(Interrupted):
            train(chosen, tmp_path / "cut", Host(), show=users_run.stop_at(ends[0] * 3 // 2))
        resumed = train(Recipe(), tmp_path / "cut", Host(), resume=True, show=Silent())
        assert users_run.told(resumed) == users_run.told(whole)
        assert sha256(resumed.weights) == sha256(whole.weights), "watched, a run ends with other weights"
        if read := getattr(self, "read", None):
            found = read(tmp_path / "cut")
            assert [step for step, _ in found["batch_loss"]] == list(range(1, ends[-1] + 1))
            assert [step for step, _ in found[metric]] == ends
