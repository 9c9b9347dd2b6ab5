"""Faithfulness figures: exact cases of a linear model, and the peers where they are installed."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from paper_toolbox.engine.reports.faithfulness import (
    area,
    faithfulness,
    infidelity,
    randomised,
    removal_curves,
    sensitivity_max,
)
from paper_toolbox.kit.gradient import input_gradient
from paper_toolbox.kit.stats import rank_correlation
from torch import Tensor, nn

T = torch.tensor([0, 1])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def linear() -> tuple[nn.Linear, Tensor, Tensor]:
    """A linear model, its inputs, and what each entry truly contributes."""
    layer = nn.Linear(4, 2, bias=False).double()
    layer.weight.data = torch.tensor([[1.0, 2, 3, 4], [4, -3, 2, 1]]).double()
    x = torch.tensor([[1.0, 1, 1, 1], [1, 2, 1, -2]]).double()
    return layer, x, layer.weight.detach()[T] * x


def times_input(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return input_gradient(model, inputs, targets) * inputs


def test_removal_curves_of_a_linear_model() -> None:
    model, x, truth = linear()
    deletion, insertion = removal_curves(model, x, T, truth, "output")
    torch.testing.assert_close(deletion[:, 0], torch.tensor([10, 6, 3, 1, 0.0]).double())  # 4, 3, 2, 1 go in this order
    torch.testing.assert_close(insertion[:, 0], torch.tensor([0, 4, 7, 9, 10.0]).double())
    torch.testing.assert_close(insertion[:, 1], torch.tensor([0, 4, 6, 4, -2.0]).double())  # 4, 2, -2, -6
    assert area(deletion[:, :1]) == pytest.approx((10 / 2 + 6 + 3 + 1) / 4)
    wrong, _ = removal_curves(model, x, T, -truth, "output")
    assert area(wrong) > area(deletion)


def test_a_one_channel_map_removes_whole_pixels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False)).double()
    x = torch.ones(2, 2, 2, 2).double()
    weight = torch.cat([torch.arange(1, 5), torch.arange(10, 50, 10)]).double()
    model[1].weight.data = weight.repeat(2, 1)
    pixels = weight.view(2, 2, 2).sum(0).expand(2, 1, 2, 2)
    deletion, _ = removal_curves(model, x, T, pixels, "output")
    torch.testing.assert_close(deletion[:, 0], torch.tensor([110, 66, 33, 11, 0.0]).double())


def test_probabilities_are_watched_by_default() -> None:
    model, x, truth = linear()
    deletion, _ = removal_curves(model, x, T, truth)
    torch.testing.assert_close(deletion[0], model(x).softmax(1).gather(1, T[:, None])[:, 0].detach())
    torch.testing.assert_close(deletion[-1], torch.full((2,), 0.5).double())


def test_infidelity_is_zero_for_the_true_contributions_alone() -> None:
    model, x, truth = linear()
    with torch.no_grad():
        assert infidelity(model, x, T, truth, seeded()) < 1e-20
        assert infidelity(model, x, T, 7 * truth, seeded()) < 1e-20  # the scale of a map does not count
        assert infidelity(model, x, T, truth.flip(1), seeded()) > 1
        empty = infidelity(model, x, T, torch.zeros_like(truth), seeded())
    assert math.isfinite(empty)
    assert empty > 1


def test_infidelity_matches_captum() -> None:
    metrics = pytest.importorskip("captum.metrics")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x, phi, n = torch.randn(2, 4).double(), torch.randn(2, 4).double(), 30
    draw = seeded()
    share = torch.rand(n, 1, generator=draw)
    mask = (torch.rand(n, 4, generator=draw) < share).double()

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        """captum repeats each sample n times in a row."""
        hidden = mask.repeat(2, 1)
        return hidden, inputs * (1 - hidden)

    theirs = metrics.infidelity(model, perturb, x, phi, target=T, n_perturb_samples=n, normalize=True)
    with torch.no_grad():
        assert infidelity(model, x, T, phi, seeded(), n) == pytest.approx(theirs.mean().item(), rel=1e-9)


def test_sensitivity_of_a_linear_model() -> None:
    model, x, truth = linear()
    gradient = input_gradient(model, x, T)
    assert sensitivity_max(model, x, T, gradient, input_gradient, seeded()) == 0
    found = sensitivity_max(model, x, T, truth, times_input, seeded(), radius=0.5, samples=200)
    weight = model.weight.detach()[T]
    bound = (0.5 * weight.norm(dim=1) / truth.norm(dim=1)).mean().item()  # reached in a corner of the cube
    assert 0.7 * bound < found <= bound


def test_randomising_the_weights_changes_an_honest_map() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 2)).double()
    x = torch.randn(2, 30).double()
    honest = input_gradient(model, x, T)
    for layers in ("last", "all"):
        found = randomised(model, x, T, honest, input_gradient, seeded(), layers)
        assert abs(found) < 0.5
        edges = randomised(model, x, T, x, lambda *_: x, seeded(), layers)
        assert edges == pytest.approx(1)  # a map of the input alone has not looked at the model


def test_rank_correlation_matches_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    a = torch.randint(0, 5, (3, 20), generator=seeded()).double()
    b = torch.randn(3, 20, generator=seeded()).double()
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    torch.testing.assert_close(rank_correlation(a, b), torch.tensor(expected))
    assert rank_correlation(torch.ones(1, 20), b[:1]).item() == 0


def test_all_figures_are_plain_numbers_and_the_model_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).train()
    x, before = torch.randn(2, 1, 6, 6), copy.deepcopy(model.state_dict())
    phi = times_input(model.eval(), x, T)
    model.train()
    figures = faithfulness(model, x, T, phi, attribute=times_input, generator=seeded())
    again = faithfulness(model, x, T, phi, attribute=times_input, generator=seeded())
    assert figures == again == json.loads(json.dumps(figures))
    names = "deletion_auc insertion_auc infidelity sensitivity_max randomised_last randomised_all"
    assert list(figures) == names.split()
    assert all(math.isfinite(value) for value in figures.values())
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
