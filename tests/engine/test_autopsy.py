"""A loss that becomes NaN or infinite: the run stops, and says which layer was the first, and whose it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.loop.keep import checkpoint_of
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.errors import ModelError
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, Recipe, assemble
from paper_toolbox.testing.two_processes import in_two_processes
from torch import Tensor

SGD, HOT = ["sgd"], ["sgd.lr=1e30"]
OF_LAYER = r"first, in step 2, the output of layers\.3 \(Linear\), whose weights reach \de\+2\d;"


def recipe(plugins: list[str], sets: list[str] = [], **more: Any) -> Recipe:  # noqa: B006  # never changed
    flags = {"data": "wine", "model": "mlp?hidden=8", "epochs": 2, "batch_size": 32, "device": "cpu"}
    return assemble(Host(), None, plugins, sets, flags | more)


def trained(chosen: Recipe, folder: Path) -> Artifact:
    return train(chosen, folder / "run", Host(), show=Silent())


def not_a_number(self: Any, logits: Tensor, targets: Tensor) -> Tensor:
    """A loss without a value."""
    return logits.sum() * float("nan")


def no_gradient(self: Any, logits: Tensor, targets: Tensor) -> Tensor:
    """A loss of 0, whose gradient is 0 times infinity."""
    return (logits * 0).square().sum().sqrt()


@pytest.mark.parametrize(
    ("plugins", "sets", "said"),
    [
        (SGD, HOT, OF_LAYER),
        (SGD, [*HOT, "precision=bf16"], OF_LAYER),
        (SGD, [*HOT, "accumulate=2"], OF_LAYER),
        (["sgd", "weight_norm"], ["sgd.lr=1e3"], r"\(ParametrizedLinear, of paper-toolbox-weight-norm 0\.1\.0\)"),
        (SGD, [*HOT, "sgd.weight_decay=1e20"], r"step 1, .*weight, after the step of sgd, of paper-toolbox-sgd"),
    ],
)
def test_the_first_layer_is_named(plugins: list[str], sets: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        trained(recipe(plugins, sets), tmp_path)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (not_a_number, r"step 1, the loss max_sup, of paper-toolbox-max-sup 0\.1\.0, of outputs that were finite"),
        (no_gradient, r"step 1, the gradient of the loss max_sup, of paper-toolbox-max-sup 0\.1\.0;"),
    ],
)
def test_the_loss_is_named(
    verb: Callable[..., Tensor], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host().method("max_sup"), "__call__", verb)
    with pytest.raises(ModelError, match=said):
        trained(recipe(["sgd", "max_sup"]), tmp_path)
    assert not any(tmp_path.iterdir()), "there was no good state to keep"


def test_a_layer_of_a_plugin_is_named_and_the_last_good_state_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It divides by zero on what it sees in the second epoch, and only there."""
    import paper_toolbox_rms_norm as plugin

    forward, calls = plugin.RootMeanSquare.forward, iter(range(10**6))
    late = 3 * 18 + 8  # three layers, 18 batches and their evaluation

    def fails(self: Any, x: Tensor) -> Tensor:
        found: Tensor = forward(self, x)
        return found / 0 if next(calls) > late else found

    monkeypatch.setattr(plugin.RootMeanSquare, "forward", fails)
    flags = {"data": "digits", "model": "vit?width=16&depth=1&heads=2", "batch_size": 80}
    with pytest.raises(
        ModelError, match=r"\(RootMeanSquare, of paper-toolbox-rms-norm 0\.1\.0\).*the state before it is"
    ):
        trained(recipe(["sgd", "rms_norm"], **flags), tmp_path)
    assert checkpoint_of(tmp_path / "run").exists()


def test_what_is_lost_in_evaluation_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = torch.nn.ReLU.forward

    def fails(self: Any, x: Tensor) -> Tensor:
        found: Tensor = forward(self, x)
        return found if self.training else found * float("inf")

    monkeypatch.setattr(torch.nn.ReLU, "forward", fails)
    with pytest.raises(ModelError, match=r"first, on the validation part, the output of layers\.1 \(ReLU\)"):
        trained(recipe(SGD), tmp_path)


def test_in_fine_tuning(tmp_path: Path) -> None:
    """It is the compressed model whose layer is named."""
    run, svd = trained(recipe(SGD), tmp_path), [Choice("compressor", "svd")]
    with pytest.raises(ModelError, match=r"first, in step 2, the output of layers\.0\.up \(Linear\)"):
        compress(run, svd, tmp_path / "small", Host(), finetune=recipe(SGD, HOT), show=Silent())
    assert not (tmp_path / "small").exists()


@pytest.mark.slow
def test_in_two_processes(tmp_path: Path) -> None:
    ends = in_two_processes(recipe(SGD, HOT), tmp_path / "run")
    assert {end["refused"] for end in ends} == {ends[0]["refused"]}, "they agree"
    assert "first, in step 2, the output of layers.3 (Linear)" in ends[0]["refused"]
