"""Layer masking: hidden pixels have no influence at all, visible ones are seen as the network sees them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from paper_toolbox.errors import ModelError, NeedError
from paper_toolbox.kit.segments import grid, local_ridge, one_hidden
from paper_toolbox.models import Cnn
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing.attributor import AttributorSuite
from paper_toolbox_layer_masking import LayerMasking, LayerMaskingLime, fill, masking
from torch import Tensor, nn

IMAGE = (2, 8, 8)


class TestLayerMasking(AttributorSuite):
    method = LayerMasking(side=4)
    models = ("cnn",)


class TestLayerMaskingLime(AttributorSuite):
    method = LayerMaskingLime(side=2, samples=40)
    models = ("cnn",)


def cnn(depth: int = 2) -> nn.Module:
    model = Cnn(width=4, depth=depth).build(Task("classification", (TensorSpec("x", IMAGE),), 3))
    model(torch.randn(32, *IMAGE) + 0.5)
    return model.double().eval()


def plain(depth: int = 2) -> nn.Module:
    head = [nn.AvgPool2d(2), nn.Conv2d(6, 5, 3, dilation=2, padding=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(20, 3)]
    body = [nn.Conv2d(2, 6, 5, padding=2, groups=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*body, *head).double().eval()


def checker() -> Tensor:
    """An irregular mask (1, 1, H, W) that hides about half."""
    return (torch.rand(1, 1, *IMAGE[1:], generator=torch.Generator().manual_seed(4)) < 0.5).double()


@pytest.mark.parametrize("build", [cnn, plain])
def test_with_everything_visible_it_is_the_network(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(3, *IMAGE).double()
    with masking(model) as outputs:
        torch.testing.assert_close(outputs(x, torch.ones(3, 1, 8, 8).double()), model(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("build", [cnn, plain])
def test_the_colour_of_hidden_pixels_does_not_matter(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x, mask = build(), torch.randn(3, *IMAGE).double(), checker().expand(3, -1, -1, -1)
    painted = x * mask + 9 * (1 - mask)
    with masking(model) as outputs:
        assert torch.equal(outputs(x, mask), outputs(painted, mask))
        assert not torch.allclose(outputs(x, mask), model(x * mask))  # not the same as painting them grey


def test_a_flat_image_looks_the_same_wherever_it_is_masked() -> None:
    """Filled with their neighbours' mean, hidden pixels of a flat image change nothing that is visible."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    x, mask = torch.ones(1, *IMAGE).double(), torch.zeros(1, 1, 8, 8).double()
    mask[..., 3:6, 2:6] = 1
    with masking(model) as outputs:
        torch.testing.assert_close(outputs(x, mask), model(x), atol=1e-4, rtol=1e-4)
    assert (model(x * mask) - model(x)).abs().max() > 0.01


def test_fill_takes_the_mean_of_visible_neighbours() -> None:
    x = torch.tensor([[[[3.0, 0.0, 5.0, 0.0, 0.0]]]]).double()
    mask = (x > 0).double()
    torch.testing.assert_close(fill(x, mask, 1), torch.tensor([[[[3, 4, 5, 5, 0.0]]]]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(fill(x, mask, 2)[..., 4], torch.tensor([[[5.0]]]).double(), atol=1e-3, rtol=0)


def test_masking_everything_leaves_the_bias_of_the_head() -> None:
    model: Any = cnn()
    x = torch.randn(2, *IMAGE).double()
    with masking(model) as outputs:
        found = outputs(x, torch.zeros(2, 1, 8, 8).double())
    torch.testing.assert_close(found, model.head.bias.detach().expand(2, 3))


def test_a_planted_patch_is_found() -> None:
    """The network counts what is bright; only one segment is."""
    net: Any = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2, bias=False))
    net = net.double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2)[:, :, None, None])
        net[3].weight.copy_(torch.stack([torch.ones(128), torch.zeros(128)]))
    x = torch.zeros(1, *IMAGE).double()
    x[..., 4:6, 2:4] = 1.0
    bright = torch.zeros(1, 1, 8, 8).double()
    bright[..., 4:6, 2:4] = 1
    t = torch.tensor([0])
    found = LayerMasking(side=4, score="output").attribute(net, x, t)
    torch.testing.assert_close(found, 8 * bright)  # 2 channels × 4 pixels of 1
    shares = LayerMaskingLime(side=4, score="output", samples=400).attribute(net, x, t)
    assert shares[bright == 1].min() > 5
    assert shares[bright == 0].abs().max() < 0.5


def test_lime_is_a_weighted_ridge_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    shown = torch.rand(200, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    scores = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)).double()
    distance = 1 - shown.double().mean(1).sqrt()
    weight = (-(distance**2) / 0.25**2).exp().sqrt()
    peer = linear_model.Ridge(alpha=1.0).fit(shown.double().numpy(), scores.numpy(), sample_weight=weight.numpy())
    torch.testing.assert_close(local_ridge(shown, scores), torch.from_numpy(peer.coef_.T.copy()))


def test_segments_cover_the_image() -> None:
    segments = grid(torch.zeros(1, 1, 7, 3), 4)
    assert segments.shape == (7, 3)
    assert torch.unique(segments).tolist() == list(range(12))
    shown = one_hidden(segments)
    assert shown.shape == (13, 12)
    assert (~shown).sum(1).tolist() == [0] + [1] * 12


class Grouped(nn.Module):
    """A normalisation over the whole image, which a mask cannot pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4))
        self.head = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).flatten(1))  # type: ignore[no-any-return]  # a tensor


class Branching(Grouped):
    """A forward that depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else super().forward(x)


@pytest.mark.parametrize(("build", "said"), [(Grouped, r"GroupNorm 'stem.1'"), (Branching, "cannot follow.*Branching")])
def test_a_layer_that_cannot_be_masked_is_named(build: type[nn.Module], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        LayerMasking().attribute(build(), torch.randn(2, *IMAGE), torch.tensor([0, 1]))


def test_one_output_has_no_probability() -> None:
    net = nn.Sequential(nn.Conv2d(2, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NeedError, match="score=output"):
        LayerMasking().attribute(net, torch.randn(2, *IMAGE), torch.tensor([0, 0]))
