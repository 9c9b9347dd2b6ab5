"""One run of a comparison: watched for its time and its memory, it learns exactly what it would learn otherwise."""

from __future__ import annotations

import pytest
import torch
from paper_toolbox.engine.comparison import trial
from paper_toolbox.engine.comparison.peak_memory import peak_memory
from paper_toolbox.engine.loop.fit import Fit
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.devices import accelerator_of
from paper_toolbox.engine.train import session_of
from paper_toolbox.errors import NeedError
from paper_toolbox.host import Host
from paper_toolbox.recipe import Recipe, assemble

FLAGS = {"model": "mlp?hidden=64&depth=1", "data": "wine", "epochs": 2, "batch_size": 32, "device": "cpu"}
FLOAT = 4  # bytes
CPU = torch.device("cpu")


def recipe(*names: str, **flags: object) -> Recipe:
    return assemble(Host(), None, names, [], FLAGS | flags)


def test_a_watched_run_is_the_same_run() -> None:
    found = trial.trained(recipe("adamw").to_dict())
    plain = Fit(session_of(recipe("adamw"), Host(), accelerator_of(recipe("adamw"))), None, Silent())
    assert plain.run() == found["figures"]
    assert found["value"] == found["figures"]["accuracy"]
    assert 0 < found["step_s"] < found["seconds"]


@pytest.mark.parametrize("name", ["adamw", "sam", "m_ngp", "forward_gradient"])
def test_memory_counts_weights_state_and_what_a_step_makes(name: str) -> None:
    """Weights, gradients and the two moments of Adam are 4 · 1027 numbers; more samples in a batch need more."""
    weights = 13 * 64 + 64 + 64 * 3 + 3
    small, large = (trial.trained(recipe(name, batch_size=size).to_dict())["memory"] for size in (8, 64))
    assert small > (4 if name == "adamw" else 2) * weights * FLOAT
    assert large > small + 56 * 64 * FLOAT  # a hidden layer of 56 more samples


def test_peak_memory_is_that_of_all_tensors_alive_at_once() -> None:
    held, touched = torch.zeros(100), torch.zeros(1000)

    def work() -> None:
        first = torch.ones(2000) + touched.sum()
        second = first + 1
        del first
        second.add_(1)
        (second[:10] * 2).sum()

    most = peak_memory(work, CPU, [held, held[:5]])
    assert (100 + 1000 + 4000) * FLOAT <= most <= (100 + 1000 + 4000 + 4) * FLOAT


def test_one_step_is_enough() -> None:
    found = trial.trained(recipe("adamw", batch_size=1000, epochs=1).to_dict())
    assert found["memory"] > 0
    assert found["step_s"] > 0


def test_what_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what torch raises: one run out of memory is no reason to lose all others."""
    for error, said in (
        (NeedError("no"), "no"),
        (RuntimeError("not enough memory"), "RuntimeError: not enough memory"),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(trial, "session_of", fail)
        assert trial.trained(recipe("adamw").to_dict()) == {"failed": said}
