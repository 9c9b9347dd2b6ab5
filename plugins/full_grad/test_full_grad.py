"""FullGrad: the decomposition is complete, and the map is put together as in the paper."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.models import Cnn
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing.attributor import AttributorSuite
from paper_toolbox_full_grad import FullGrad, SimpleFullGrad, SmoothFullGrad, aggregate, bias, decompose, rescale
from torch import Tensor, nn
from torch.nn.utils import parametrizations

IMAGE = (2, 8, 8)

T = torch.tensor([0, 2, 1])


class TestFullGrad(AttributorSuite):
    method = FullGrad()
    models = ("cnn",)


class TestSimpleFullGrad(AttributorSuite):
    method = SimpleFullGrad()
    models = ("cnn",)


class TestSmoothFullGrad(AttributorSuite):
    method = SmoothFullGrad(samples=4)
    models = ("cnn",)


class Reused(nn.Module):
    """One biased convolution and one in-place activation, each called three times beside a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.SiLU(inplace=True), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.act(self.conv(x)) + x
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]  # a tensor


def cnn() -> nn.Module:
    return Cnn(width=4, depth=2).build(Task("classification", (TensorSpec("x", IMAGE),), 3))


def relu_net(use_bias: bool = True) -> nn.Module:
    convs = [nn.Conv2d(2, 5, 3, bias=use_bias), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3, stride=2, bias=use_bias)]
    return nn.Sequential(*convs, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3, bias=use_bias))


def smooth_net() -> nn.Module:
    body = [nn.Conv2d(2, 4, 3), nn.GELU(), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.Softplus()]
    return nn.Sequential(*body, nn.Flatten(), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 3))


def weight_normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def trained(model: nn.Module) -> nn.Module:
    """Random biases and running statistics, as training leaves them; float64, evaluation mode."""
    model(torch.randn(32, *IMAGE) + 0.5)
    for p in model.parameters():
        if p.dim() == 1:
            nn.init.normal_(p, 0.5)
    return model.double().eval()


@pytest.mark.parametrize("build", [relu_net, cnn, Reused, smooth_net, weight_normed])
def test_gradients_and_biases_make_up_the_output(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = trained(build()), torch.randn(3, *IMAGE).double()
    gradient, terms = decompose(model, x, T)
    total = (gradient * x).flatten(1).sum(1) + sum((g * b).flatten(1).sum(1) for _, g, b in terms)
    expected = model(x).gather(1, T[:, None])[:, 0].detach()
    torch.testing.assert_close(total, expected, atol=1e-12, rtol=1e-12)
    assert ((gradient * x).flatten(1).sum(1) - expected).abs().min() > 1e-3  # the biases are needed


def test_a_layer_called_three_times_has_three_terms_in_order() -> None:
    model = trained(Reused())
    _, terms = decompose(model, torch.randn(3, *IMAGE).double(), T)
    assert [term.path for term in terms] == ["conv", "act"] * 3 + ["head"]
    assert not torch.allclose(terms[0].gradient, terms[2].gradient)


def test_the_bias_of_batch_norm_holds_its_statistics() -> None:
    norm = nn.BatchNorm2d(4).double()
    norm(torch.randn(16, 4, 3, 3).double() + 1)
    for p in norm.parameters():
        nn.init.normal_(p)
    norm.eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    expected = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
    found = bias(norm, torch.randn(2, 4, 3, 3).double())
    torch.testing.assert_close(found, expected[:, None, None].expand(1, 4, 3, 3))


def test_the_implicit_bias_of_an_activation() -> None:
    z = torch.randn(2, 4).double()
    s = z.sigmoid()
    torch.testing.assert_close(bias(nn.Sigmoid(), z), s - s * (1 - s) * z)


def test_without_biases_it_is_input_times_gradient() -> None:
    model, x = relu_net(use_bias=False).double().eval(), torch.randn(3, *IMAGE).double()
    gradient, terms = decompose(model, x, T)
    assert terms == []
    expected = rescale(gradient * x).sum(1, keepdim=True)
    torch.testing.assert_close(FullGrad().attribute(model, x, T), expected)


def test_the_map_follows_equation_5() -> None:
    """Written out for two convolutions; the linear layer's bias is not drawn."""
    model, x = trained(relu_net()), torch.randn(3, *IMAGE).double().requires_grad_()
    first, _, second, _, _, _, last = model.children()
    a = first(x)
    b = second(a.relu())
    score = last(F.avg_pool2d(b.relu(), 2).flatten(1)).gather(1, T[:, None]).sum()
    gx, ga, gb = torch.autograd.grad(score, [x, a, b])
    simple = full = _drawn(gx * x)
    for g, layer in ((ga, first), (gb, second)):
        full = full + _drawn(g * dict(layer.named_parameters())["bias"][:, None, None])
        simple = simple + _drawn(g)
    torch.testing.assert_close(FullGrad().attribute(model, x.detach(), T), full.detach())
    torch.testing.assert_close(SimpleFullGrad().attribute(model, x.detach(), T), simple.detach())


def _drawn(part: Tensor) -> Tensor:
    maps = []
    for sample in part.abs():
        low = sample - sample.min()
        maps.append(low / (low.max() + 1e-6))
    large = F.interpolate(torch.stack(maps), IMAGE[1:], mode="bilinear", align_corners=True)
    return large.sum(1, keepdim=True)


def test_smooth_full_grad_averages_the_components() -> None:
    model, x = trained(relu_net()), torch.randn(3, *IMAGE).double()
    quiet = SmoothFullGrad(samples=3, noise_level=0).attribute(model, x, T)
    gradient, terms = decompose(model, x, T)
    torch.testing.assert_close(quiet, aggregate([(gradient * x).sum(1, keepdim=True), *(g * b for _, g, b in terms)]))
    noisy = SmoothFullGrad(samples=3).attribute(model, x, T, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(noisy, quiet)


def test_a_layer_norm_model_is_not_changed_by_recording() -> None:
    model, x = trained(smooth_net()), torch.randn(3, *IMAGE).double()
    before = copy.deepcopy(model)(x)
    decompose(model, x, T)
    assert torch.equal(model(x), before)
