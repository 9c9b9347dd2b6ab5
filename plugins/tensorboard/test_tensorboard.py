"""TensorBoard, read back by its own event reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from paper_toolbox import Run
from paper_toolbox.errors import NeedError, ParamError
from paper_toolbox.testing.observer import ObserverSuite, Series
from paper_toolbox_tensorboard import TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard import SummaryWriter


def read(folder: Path) -> Series:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class TestTensorBoard(ObserverSuite):
    method = TensorBoard()
    read = staticmethod(read)
    rtol = 1e-7  # of float32


def test_the_settings_are_a_table(tmp_path: Path) -> None:
    with TensorBoard().watch(Run(tmp_path, {"epochs": 2, "adamp.lr": 1e-3})):
        pass
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (event,) = events.Tensors("settings/text_summary")
    assert (
        make_ndarray(event.tensor_proto).item()
        == b"| setting | value |\n|---|---|\n| epochs | 2 |\n| adamp.lr | 0.001 |"
    )


def test_many_runs_share_a_log_dir_and_none_takes_the_place_of_another(tmp_path: Path) -> None:
    method = TensorBoard(log_dir=str(tmp_path / "all"))
    for name in ("one", "two"):
        with method.watch(Run(tmp_path / name)) as record:
            record(1, {"loss": 0.5})
    assert EventAccumulator(str(tmp_path / "all" / "two")).Reload().Scalars("loss")[0].value == 0.5
    with (
        pytest.raises(ParamError, match=r"all/one exists already: name another log_dir"),
        method.watch(Run(tmp_path / "one")),
    ):
        pass


def test_a_row_does_not_wait_for_the_writers_own_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[SummaryWriter] = []
    monkeypatch.setattr(SummaryWriter, "flush", lambda writer: flushed.append(writer))
    with TensorBoard().watch(Run(tmp_path)) as record:
        record(1, {"loss": 0.5, "accuracy": 0.5})
        assert len(flushed) == 1


def test_a_library_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(NeedError, match="pip install tensorboard"), TensorBoard().watch(Run(tmp_path)):
        pass
