"""Parameter groups by pattern, half-precision weights and eight-bit state, as a run asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.optimize import build_optimizer, grouped, narrow
from paper_toolbox.engine.train import train
from paper_toolbox.errors import NeedError, ParamError, ToolboxError
from paper_toolbox.host import Host
from paper_toolbox.kit.samples import Samples
from paper_toolbox.recipe import Training, assemble
from torch import nn

NAMED = [("body.weight", torch.ones(2, 2)), ("body.bias", torch.ones(2)), ("head.bias", torch.ones(1))]


def run(folder: Path, *sets: str, plugin: str = "adamw", **flags: Any) -> Any:
    settings = {"model": "mlp?hidden=16&depth=1", "epochs": 2, "device": "cpu", **flags}
    return train(assemble(Host(), None, [plugin], sets, settings), folder / "run", Host(), show=Silent())


def test_patterns_override_fields_and_the_last_match_wins() -> None:
    groups = grouped(NAMED, {"*.bias": {"weight_decay": 0.0}, "head.*": {"weight_decay": 0.5, "betas": [0.5, 0.9]}})
    assert [{k: v for k, v in group.items() if k != "params"} for group in groups] == [
        {},
        {"weight_decay": 0.0},
        {"weight_decay": 0.5, "betas": [0.5, 0.9]},
    ]
    assert [len(group["params"]) for group in groups] == [1, 1, 1]
    assert all(p is q for p, (_, q) in zip(grouped(NAMED, {}), NAMED, strict=True))


def test_groups_reach_the_run(tmp_path: Path) -> None:
    """Weights that are neither moved nor decayed stay where the seed put them."""
    still = run(tmp_path / "still", "groups={'*.weight': {lr: 0, weight_decay: 0}}")
    again = run(tmp_path / "again", "groups={'*.weight': {lr: 0, weight_decay: 0}}", epochs=1)
    from safetensors.torch import load_file

    one, two = (load_file(each.weights) for each in (still, again))
    assert all(torch.equal(x, two[name]) for name, x in one.items() if name.endswith("weight"))
    assert not all(torch.equal(x, two[name]) for name, x in one.items() if name.endswith("bias"))


@pytest.mark.parametrize("weights", ["bf16_stochastic", "bf16_master"])
def test_half_weights_and_eight_bits_train(weights: str, tmp_path: Path) -> None:
    found = run(tmp_path, "precision=bf16", f"weights={weights}", "optimizer_state=8bit", "adamw.lr=0.01", epochs=3)
    assert found.figures["accuracy"] > 0.8


def test_narrow_leaves_vectors_and_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    narrow(model, Training(weights="bf16_master", precision="bf16"))
    assert {name: x.dtype for name, x in model.state_dict().items() if x.is_floating_point()} == {
        "0.weight": torch.bfloat16,
        "0.bias": torch.float32,
        **{f"1.{name}": torch.float32 for name in ("weight", "bias", "running_mean", "running_var")},
    }


@pytest.mark.parametrize(
    ("plugin", "sets", "said"),
    [
        ("adamw", ["groups={'*.biass': {lr: 0}}"], r"'\*.biass' matches no parameter; names look like "),
        ("adamw", ["groups={'*.bias': {decay: 0}}"], "the optimizer has no field 'decay'"),
        ("adamw", ["groups={'*.bias': {lr: -1}}"], "AdamW.lr = -1: must be greater than or equal to 0"),
        ("adamw", ["groups=7"], "recipe.groups = '7': must be"),
        ("adamw", ["weights=bf16_master"], "weights = bf16_master needs precision=bf16"),
        ("forward_gradient", ["optimizer_state=8bit"], "ForwardGradient keeps its weights and state in its own way"),
        ("forward_gradient", ["clip_norm=1"], "forward_gradient computes no gradient that clip_norm could clip"),
        ("cross_entropy", ["offload_state=true"], "need a named optimizer"),
    ],
)
def test_what_cannot_be_is_refused(plugin: str, sets: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ToolboxError, match=said):
        run(tmp_path, *sets, plugin=plugin)
    assert not (tmp_path / "run").exists()


def test_samples_give_the_loss_and_what_is_behind_it() -> None:
    layer, x, y = nn.Linear(3, 2), torch.randn(5, 3), torch.arange(5) % 2
    samples = Samples(layer, [(x[:2], y[:2]), (x[2:4], y[2:4])], nn.functional.cross_entropy)
    torch.testing.assert_close(samples(), nn.functional.cross_entropy(layer(x[:4]), y[:4]))
    torch.testing.assert_close(samples.outputs(x, lambda inputs: 2 * layer(inputs)), 2 * layer(x))


def test_without_a_method_torchs_adamw_takes_the_groups() -> None:
    model = nn.Linear(2, 2)
    objective: Any = nn.Module()
    settings = Training(groups={"bias": {"lr": 0.5}})
    built = build_optimizer(None, model, objective, settings, 10)
    assert [group["lr"] for group in built.param_groups] == [1e-3, 0.5]
    with pytest.raises(ParamError, match="no field 'rate'"):
        build_optimizer(None, model, objective, Training(groups={"bias": {"rate": 0.5}}), 10)
    with pytest.raises(NeedError, match="named optimizer"):
        build_optimizer(None, model, objective, Training(optimizer_state="8bit"), 10)


def test_what_a_wrapper_wraps_is_on_record(tmp_path: Path) -> None:
    found = run(tmp_path, "sam.base=adamw?eps=1e-6", plugin="sam", epochs=1)
    assert [each["name"] for each in found.summary["plugins"]] == ["sam", "adamw"]
