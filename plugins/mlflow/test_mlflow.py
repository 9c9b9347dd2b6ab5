"""MLflow, read back by its own client."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from paper_toolbox import Run
from paper_toolbox.errors import Interrupted, NeedError
from paper_toolbox.testing.observer import SETTINGS, ObserverSuite, Series, rows
from paper_toolbox_mlflow import Mlflow


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=str(folder.parent / "mlruns"))


def number(folder: Path) -> str:
    return (folder / "mlflow-run-id").read_text("utf-8")


def read(folder: Path) -> Series:
    opened, run = client(folder), number(folder)
    names = opened.get_run(run).data.metrics
    return {name: [(m.step, m.value) for m in opened.get_metric_history(run, name)] for name in names}


class TestMlflow(ObserverSuite):
    method = Mlflow()
    read = staticmethod(read)


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (Interrupted("stopped"), "KILLED"), (ValueError("broken"), "FAILED")]
)
def test_how_it_ended_and_what_with(error: Exception | None, status: str, tmp_path: Path) -> None:
    suite, folder = TestMlflow(), tmp_path / "run"
    with contextlib.suppress(Interrupted, ValueError):
        suite.observe(Run(folder, SETTINGS), rows(1, 2), error)
    run = client(folder).get_run(number(folder))
    assert (run.info.status, run.info.run_name) == (status, "run")
    assert run.data.params == {name: str(value) for name, value in SETTINGS.items()}
    assert client(folder).get_experiment(run.info.experiment_id).name == "paper-toolbox"


def test_a_run_that_goes_on_is_the_same_and_running(tmp_path: Path) -> None:
    suite, folder = TestMlflow(), tmp_path / "run"
    suite.observe(Run(folder, SETTINGS), rows(1, 2))
    before = number(folder)
    with Mlflow().watch(Run(folder, SETTINGS, resumed=True, step=2)):
        assert number(folder) == before
        assert client(folder).get_run(before).info.status == "RUNNING"


def test_a_store_of_ones_own_and_an_experiment(tmp_path: Path) -> None:
    method = Mlflow(store=str(tmp_path / "mine"), experiment="trees")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with method.watch(Run(tmp_path / name)) as record:
            record(0, {"loss": 0.5})
    opened = MlflowClient(tracking_uri=str(tmp_path / "mine"))
    owner = opened.get_experiment_by_name("trees")
    assert {run.data.metrics["loss"] for run in opened.search_runs([owner.experiment_id])} == {0.5}
    assert len(opened.search_runs([owner.experiment_id])) == 2


def test_a_uri_is_taken_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="nowhere"), Mlflow(store="nowhere://x").watch(Run(tmp_path)):
        pass


def test_nothing_goes_out_and_a_library_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(NeedError, match="pip install mlflow-skinny"), Mlflow().watch(Run(tmp_path)):
        pass
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
