"""What every observer must do; a plugin's test subclasses ``ObserverSuite``, names its method and reads it back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from ..errors import Interrupted
from ..kinds import Observer, Run
from .declared import Declared
from .whole_way import ObservesWholeWay

Row = tuple[int, Mapping[str, float]]
Series = Mapping[str, Sequence[tuple[int, float]]]  #: (step, value) by figure, as they were recorded
SETTINGS = {"data": "digits", "epochs": 2, "adamp.lr": 1e-3, "groups": {}, "teacher": None, "plugins": ["adamp"]}
READ = (
    *("test_read_back_it_equals_its_oracle", "test_resumed_each_row_is_there_once", "test_the_next_run_is_another"),
    "test_a_row_is_on_record_at_once",
)


def rows(first: int, last: int) -> list[Row]:
    """A row after every step, and after every third an evaluation's: other figures at the same step."""
    found: list[Row] = []
    for step in range(first, last + 1):
        found.append((step, {"epoch": (step + 2) // 3, "batch_loss": 1 / step, "lr": 1e-30 * step}))
        if step % 3 == 0:
            found.append((step, {"loss": -1e30 / step, "accuracy": 1 - 1 / step, "seconds": 0.1 * step}))
    return found


def by_figure(rows: Iterable[Row]) -> Series:
    """The steps and values of each figure, in the order of ``rows``."""
    series: dict[str, list[tuple[int, float]]] = {}
    for step, figures in rows:
        for name, value in figures.items():
            series.setdefault(name, []).append((step, value))
    return series


class ObserverSuite(Declared, ObservesWholeWay):
    """The oracle of an observer is the reader that its format has anyway: what it reads back is what was told."""

    method: Observer
    read: ClassVar[staticmethod[[Path], Series] | None] = None  #: ``staticmethod(…)``, of a run's folder
    rtol: ClassVar[float] = 0.0  #: of the values read back
    at_once: ClassVar[bool] = True  #: False for a library that keeps rows back, which a run that is killed then lacks
    recipe: ClassVar[Mapping[str, Any]] = {"data": "wine", "model": "mlp?hidden=16"}

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        for name in READ:  # without a reader there is no claim, and no test
            setattr(cls, name, getattr(ObserverSuite, name) if cls.read else None)
        if not cls.at_once:
            setattr(cls, READ[-1], None)

    def observe(self, run: Run, told: Sequence[Row], error: Exception | None = None) -> None:
        """Open, tell, and end as a run does, or with ``error``."""
        run.folder.mkdir(exist_ok=True)
        with self.method.watch(run) as record:
            for step, figures in told:
                record(step, figures)
            if error:
                raise error

    def check(self, folder: Path, told: Sequence[Row]) -> None:
        """Read back, every figure has its steps in order, and its values."""
        read = type(self).read
        assert read is not None
        found, wanted = read(folder), by_figure(told)
        assert found.keys() == wanted.keys()
        for name, series in wanted.items():
            assert [step for step, _ in found[name]] == [step for step, _ in series], name
            values = [value for _, value in found[name]]
            assert values == pytest.approx([value for _, value in series], rel=self.rtol, abs=0), name

    def test_read_back_it_equals_its_oracle(self, tmp_path: Path) -> None:
        self.observe(Run(tmp_path / "run", SETTINGS), rows(1, 6))
        self.check(tmp_path / "run", rows(1, 6))

    def test_resumed_each_row_is_there_once(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Interrupted, resumed where it stood; killed, resumed from the step of its checkpoint; and nothing printed."""
        folder = tmp_path / "run"
        with pytest.raises(Interrupted):
            self.observe(Run(folder, SETTINGS), rows(1, 4), Interrupted("interrupted"))
        self.observe(Run(folder, SETTINGS, resumed=True, step=4), rows(5, 7))
        self.observe(Run(folder, SETTINGS, resumed=True, step=6), rows(7, 9))
        self.check(folder, rows(1, 9))
        assert capfd.readouterr() == ("", "")

    def test_a_row_is_on_record_at_once(self, tmp_path: Path) -> None:
        with self.method.watch(Run(tmp_path, SETTINGS)) as record:
            for told in rows(1, 9):
                record(*told)
            self.check(tmp_path, rows(1, 9))

    def test_the_next_run_is_another(self, tmp_path: Path) -> None:
        for name, last in {"one": 3, "two": 5}.items():
            self.observe(Run(tmp_path / name, SETTINGS), rows(1, last))
        self.check(tmp_path / "one", rows(1, 3))
        self.check(tmp_path / "two", rows(1, 5))

    def test_what_is_not_finite_is_taken_and_files_are_closed(self, tmp_path: Path) -> None:
        before = set(psutil.Process().open_files())
        self.observe(Run(tmp_path / "run", SETTINGS), [(1, {"batch_loss": math.nan}), (2, {"batch_loss": math.inf})])
        left = [file.path for file in psutil.Process().open_files() if file not in before]
        assert not [path for path in left if Path(path).is_relative_to(tmp_path)]
