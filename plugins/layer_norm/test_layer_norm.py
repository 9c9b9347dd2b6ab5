"""Layer normalization: torch's layers in the places the paper names, and the invariances it proves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import surgery
from paper_toolbox.kit.capture import last_linear
from paper_toolbox.testing.normalizer import NormalizerSuite
from paper_toolbox.testing.parity import same_in_onnx
from paper_toolbox.testing.small import build
from paper_toolbox_layer_norm import LayerNorm, PositionNorm
from torch import Tensor, nn

draw = torch.Generator().manual_seed(0)
maps = 3 * torch.randn(4, 6, 5, 3, generator=draw, dtype=torch.float64) + 1


class TestLayerNorm(NormalizerSuite):
    method = LayerNorm()
    alone = ("mlp", "cnn", "transformer")


class TestLayerNormByPosition(NormalizerSuite):
    method = LayerNorm(mode="position")
    alone = ("mlp", "cnn", "transformer")
    exported = "cnn"


def norm_of(kind: nn.Module, **fields: Any) -> nn.Module:
    """What takes the place of ``kind``."""
    model: Any = LayerNorm(**fields).apply(nn.Sequential(kind))
    return model[0]  # type: ignore[no-any-return]  # a Sequential


def conv_net(*norms: nn.Module) -> nn.Sequential:
    convs = [nn.Conv2d(1 if not i else 6, 6, 3, padding=1, bias=False) for i in range(len(norms))]
    layers = [layer for conv, norm in zip(convs, norms, strict=True) for layer in (conv, norm, nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 16, 3)).double()


def test_the_units_of_a_case_have_mean_0_and_variance_1() -> None:
    y = norm_of(nn.BatchNorm2d(6).double(), eps=0)(maps)
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(y.var((1, 2, 3), correction=0), torch.ones(4, dtype=torch.float64))
    y = norm_of(nn.BatchNorm2d(6).double(), eps=0, mode="position")(maps)
    torch.testing.assert_close(y.mean(1), torch.zeros(4, 5, 3, dtype=torch.float64))
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(4, 5, 3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (4, 6, 5, 3)])
@pytest.mark.parametrize("mode", ["sample", "position"])
def test_equals_torch(mode: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
    ours: Any = norm_of(nn.BatchNorm1d(6).double(), mode=mode, eps=1e-3)
    peer: Any = nn.GroupNorm(1, 6, 1e-3) if mode == "sample" else nn.LayerNorm(6, 1e-3)
    peer.double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(peer, name).copy_(torch.randn(6, generator=draw))
            getattr(ours, name).copy_(getattr(peer, name))
    theirs = peer(x) if mode == "sample" else peer(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(ours(x), theirs, atol=1e-12, rtol=0)
    weights = torch.randn(shape, generator=draw, dtype=torch.float64)
    got, expected = (
        torch.autograd.grad((y * weights).sum(), [x, *m.parameters()]) for y, m in ((ours(x), ours), (theirs, peer))
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", ["sample", "position"])
def test_scaling_the_incoming_weights_changes_nothing(mode: str) -> None:
    model: Any = LayerNorm(mode=mode, eps=0).apply(conv_net(nn.BatchNorm2d(6), nn.BatchNorm2d(6)))
    x = torch.randn(5, 1, 4, 4, generator=draw, dtype=torch.float64)
    expected = model(x)
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight *= 7.0
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x * torch.tensor([1, 2, 3, 4, 5.0])[:, None, None, None]), expected)


def test_shifting_all_summed_inputs_of_a_case_changes_nothing() -> None:
    norm = norm_of(nn.BatchNorm2d(6).double(), eps=0)
    torch.testing.assert_close(norm(3 * maps + torch.randn(4, 1, 1, 1, dtype=torch.float64)), norm(maps))


def test_stands_between_a_hidden_layer_and_its_non_linearity() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    head, x = model[4], torch.randn(5, 4)
    one, two = nn.LayerNorm(8), nn.LayerNorm(8)
    expected = model[4](two(model[2](one(model[0](x)).relu())).relu())
    LayerNorm().apply(model)
    torch.testing.assert_close(model(x), expected)
    assert [p for p, _ in surgery.find(model, nn.LayerNorm)] == ["0.1", "2.1"]
    assert last_linear(model) is head


def test_a_convolutional_net_without_norms_gets_them_behind_its_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3))
    LayerNorm(mode="position").apply(model)
    assert [p for p, _ in surgery.find(model, PositionNorm)] == ["0.1"]


def test_takes_over_gain_and_bias() -> None:
    old = nn.BatchNorm2d(6)
    nn.init.zeros_(old.weight)  # the last norm of a residual path is often started so
    nn.init.constant_(old.bias, 0.5)
    new: Any = norm_of(old)
    assert torch.equal(new(maps.float()), torch.full_like(maps, 0.5, dtype=torch.float32))
    assert list(norm_of(old, affine=False).parameters()) == []


@pytest.mark.parametrize("old", [nn.InstanceNorm2d(6), nn.GroupNorm(3, 6), nn.BatchNorm2d(6, affine=False)])
def test_replaces_every_norm_of_feature_maps(old: nn.Module) -> None:
    torch.testing.assert_close(norm_of(old)(maps.float()), nn.GroupNorm(1, 6)(maps.float()))


@pytest.mark.parametrize(
    "old", [nn.LayerNorm((5, 3)), nn.RMSNorm((5, 3)), nn.LayerNorm((5, 3), elementwise_affine=False)]
)
def test_replaces_every_norm_of_the_last_axes(old: nn.Module) -> None:
    torch.testing.assert_close(norm_of(old, eps=0.1)(maps.float()), nn.LayerNorm((5, 3), eps=0.1)(maps.float()))


def test_changes_its_mode_when_applied_again() -> None:
    model = LayerNorm(mode="position").apply(conv_net(nn.BatchNorm2d(6)))
    assert len(surgery.find(model, PositionNorm)) == 1
    LayerNorm(mode="sample").apply(model)
    assert len(surgery.find(model, nn.GroupNorm)) == 1


class Permuting(nn.LayerNorm):
    """A subclass with another axis order, as libraries have them."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("model", [conv_net(Permuting(6)), nn.Sequential(nn.Linear(3, 3)), nn.LayerNorm(3)])
def test_what_it_does_not_know_it_leaves_alone(model: nn.Module) -> None:
    before = copy.deepcopy(model)
    with pytest.raises(NothingChanged, match="layer_norm found 0 layers"):
        LayerNorm().apply(model)
    assert repr(model) == repr(before)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sample", "position"])
def test_exports_within_1e_5(mode: str, tmp_path: Path) -> None:
    for name in ("cnn", "mlp"):
        small = build(name)
        model = LayerNorm(mode=mode).apply(small.model).eval()
        same_in_onnx(model, [x for x, _ in small.batches], tmp_path / "model.onnx")
