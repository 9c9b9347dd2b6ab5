"""SmoothGrad: exact cases, the expected value of a kink, and the reference implementation with the same noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from paper_toolbox.kit.gradient import input_gradient
from paper_toolbox.testing.attributor import AttributorSuite
from paper_toolbox_smooth_grad import SmoothGrad, SmoothGradSquared, VarGrad
from torch import nn


class TestSmoothGrad(AttributorSuite):
    method = SmoothGrad(samples=8)
    linear = "weight"


class TestSmoothGradSquared(AttributorSuite):
    method = SmoothGradSquared(samples=8)


class TestVarGrad(AttributorSuite):
    method = VarGrad(samples=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_mean_gradient_of_a_kink_tends_to_a_half() -> None:
    x = torch.tensor([[-1.0, 0.0, 1.0]]).double()  # range 2, so that noise_level 0.5 is σ = 1
    n, t = 400, torch.tensor([1])
    found = SmoothGrad(samples=n, noise_level=0.5).attribute(nn.ReLU(), x, t, generator=seeded())
    assert abs(found[0, 1].item() - 0.5) < 4 * 0.5 / n**0.5  # the gradient at x is 0 or 1
    spread = VarGrad(samples=n, noise_level=0.5).attribute(nn.ReLU(), x, t, generator=seeded())
    assert spread[0, 1].item() == pytest.approx(found[0, 1].item() * (1 - found[0, 1].item()), abs=1e-9)


def test_without_noise_it_is_the_gradient() -> None:
    model, x, t = TestSmoothGrad().case("mlp")
    plain = input_gradient(model, x, t)
    assert torch.equal(SmoothGrad(noise_level=0).attribute(model, x, t), plain)
    torch.testing.assert_close(SmoothGradSquared(noise_level=0).attribute(model, x, t), plain**2)
    assert (VarGrad(noise_level=0).attribute(model, x, t) == 0).all()


def test_noise_follows_the_range_of_each_sample() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x, t = torch.randn(1, 4).double(), torch.tensor([1])
    wide = torch.cat([x, 10 * x])
    spread = VarGrad(samples=50).attribute(net, wide, t.repeat(2), generator=seeded())
    alone = VarGrad(samples=50, noise_level=1.5).attribute(net, x, t, generator=seeded())
    small = VarGrad(samples=50).attribute(net, x, t, generator=seeded())
    torch.testing.assert_close(spread[:1], small)
    assert alone.sum() > 3 * small.sum()


@pytest.mark.parametrize(
    ("method", "kind"), [(SmoothGrad, "smoothgrad"), (SmoothGradSquared, "smoothgrad_sq"), (VarGrad, "vargrad")]
)
def test_matches_captum_with_the_same_noise(method: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double().eval()
    x, t = torch.randn(1, 2, 6, 6).double(), torch.tensor([2])
    sigma = 0.2 * (x.max() - x.min()).item()
    tunnel = captum.NoiseTunnel(captum.Saliency(net))
    options = {"nt_samples": 20, "nt_samples_batch_size": 1, "stdevs": sigma, "target": t, "abs": False}
    monkeypatch.setattr(torch, "normal", lambda _, std: std * torch.randn(std.shape, dtype=torch.float64))
    torch.manual_seed(5)
    theirs = tunnel.attribute(x.clone().requires_grad_(), nt_type=kind, **options)
    torch.manual_seed(5)
    ours = method(samples=20, noise_level=0.2).attribute(net, x, t)
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-9, rtol=1e-5)  # captum keeps σ in float32
