"""MLflow: a run of an experiment, with its parameters, its metrics and how it ended."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from paper_toolbox import Observer, Record, Run, hookimpl, param
from paper_toolbox.errors import Interrupted, NeedError


@dataclass(frozen=True, kw_only=True)
class Mlflow(Observer):
    """A metric by figure and step; the settings are the parameters."""

    store: str | None = param(None, "a folder, or a URI that MLflow takes; none: mlruns beside the run's folder")
    experiment: str = param("paper-toolbox", "what the run belongs to")

    @contextmanager
    def watch(self, run: Run) -> Iterator[Record]:
        """A run that goes on is the same to MLflow; what an earlier start told is not told again."""
        client, status = _client(self.store or str((run.folder.parent / "mlruns").resolve())), "FAILED"
        number = _number(client, run, self.experiment)
        told = {name: client.get_metric_history(number, name) for name in client.get_run(number).data.metrics}

        def record(step: int, figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                if name not in told or step > told[name][-1].step:
                    client.log_metric(number, name, value, step=step)

        try:
            yield record
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            client.set_terminated(number, status)


def _client(store: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing goes out that nobody asked for
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow prefers a database, and asks for this word
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise NeedError(f"mlflow cannot be imported ({error}): pip install mlflow-skinny") from error
    return MlflowClient(tracking_uri=store)


def _number(client: Any, run: Run, experiment: str) -> str:
    """MLflow's number of the run, which the run's folder remembers."""
    note = run.folder / "mlflow-run-id"
    if run.resumed and note.exists():
        client.update_run(note.read_text("utf-8"), status="RUNNING")
        return note.read_text("utf-8")
    known = client.get_experiment_by_name(experiment)
    owner = known.experiment_id if known else client.create_experiment(experiment)
    number: str = client.create_run(owner, run_name=run.folder.name).info.run_id
    for name, value in run.settings.items():
        client.log_param(number, name, value)
    note.write_text(number, "utf-8")
    return number


@hookimpl
def observer() -> dict[str, type[Observer]]:
    return {"mlflow": Mlflow}
