"""Weight conditioning: unit rows, the bound of van der Sluis, and better conditioned matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import weights
from paper_toolbox.testing.normalizer import NormalizerSuite
from paper_toolbox_weight_conditioning import Equilibrated, WeightConditioning
from torch import Tensor, nn

draw = torch.Generator().manual_seed(0)
matrix = (
    torch.randn(8, 12, generator=draw, dtype=torch.float64) * torch.logspace(-3, 3, 8, dtype=torch.float64)[:, None]
)
ones = torch.ones(8, dtype=torch.float64)


class TestWeightConditioning(NormalizerSuite):
    method = WeightConditioning()
    alone = ("mlp", "transformer")


class TestBothSides(NormalizerSuite):
    method = WeightConditioning(mode="row_column", rounds=2, scale=1.4, detach=True)
    alone = ("mlp", "transformer")
    exported = "cnn"


def cond(w: Tensor) -> float:
    return float(torch.linalg.cond(w))


@pytest.mark.parametrize("scale", [1.0, 2**0.5])
def test_rows_have_the_length_of_scale(scale: float) -> None:
    torch.testing.assert_close(Equilibrated(scale=scale)(matrix).norm(dim=1), scale * ones)


def test_columns_have_the_length_of_scale() -> None:
    torch.testing.assert_close(Equilibrated("column")(matrix).norm(dim=0), torch.ones(12, dtype=torch.float64))


def test_row_column_is_row_and_then_column() -> None:
    torch.testing.assert_close(Equilibrated("row_column")(matrix), Equilibrated("column")(Equilibrated("row")(matrix)))
    lengths = Equilibrated("row_column", rounds=30)(matrix).norm(dim=1)
    torch.testing.assert_close(lengths, (12 / 8) ** 0.5 * ones, atol=1e-4, rtol=0)


def test_scaling_a_row_changes_nothing_and_its_gradient_is_orthogonal_to_it() -> None:
    layer, factors = Equilibrated(), torch.rand(8, 1, generator=draw, dtype=torch.float64) + 0.1
    torch.testing.assert_close(layer(factors * matrix), layer(matrix))
    w = matrix.clone().requires_grad_()
    goal = torch.randn(8, 12, generator=draw, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layer(w) * goal).sum(), w)
    assert ((gradient * w).sum(1) / gradient.norm(dim=1) / w.norm(dim=1)).abs().max() < 1e-10
    (constant,) = torch.autograd.grad((Equilibrated(detach=True)(w) * goal).sum(), w)
    torch.testing.assert_close(constant, goal / matrix.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("layer", "axis"), [(nn.Conv2d(6, 4, 3, groups=2), 0), (nn.ConvTranspose1d(6, 4, 3), 1), (nn.Linear(6, 4), 0)]
)
def test_the_rows_are_the_output_units(layer: Any, axis: int) -> None:
    plain = layer.weight.detach().clone()
    WeightConditioning().apply(nn.Sequential(layer))
    others = [d for d in range(plain.ndim) if d != axis]
    torch.testing.assert_close(layer.weight, plain / plain.square().sum(others, keepdim=True).sqrt())


def test_no_diagonal_scaling_is_better_by_more_than_the_root_of_the_rows() -> None:
    for _ in range(20):
        w = torch.randn(6, 9, generator=draw, dtype=torch.float64)
        w *= 10 ** (2 * torch.randn(6, 1, generator=draw, dtype=torch.float64))
        logs = 10 ** torch.randn(500, 6, 1, generator=draw, dtype=torch.float64)
        best = min(torch.linalg.cond(logs * Equilibrated()(w)).min().item(), cond(w))
        assert cond(Equilibrated()(w)) <= 6**0.5 * best


def test_badly_scaled_matrices_become_well_conditioned() -> None:
    w = torch.randn(50, 20, 30, generator=draw, dtype=torch.float64)
    w *= 10 ** torch.randn(50, 20, 1, generator=draw, dtype=torch.float64)
    after = torch.linalg.cond(torch.stack([Equilibrated()(m) for m in w]))
    assert after.mean() < torch.linalg.cond(w).mean() / 5


def test_the_output_layer_can_be_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    WeightConditioning(last=False).apply(model)
    assert [weights.parametrizations(m) != [] for m in (model[0], model[2])] == [True, False]


def test_a_row_of_zeros_stays_finite() -> None:
    w = matrix.clone()
    w[3] = 0
    w.requires_grad_()
    for mode in ("row", "column", "row_column"):
        out = Equilibrated(mode)(w)
        assert out.isfinite().all()
        assert torch.autograd.grad(out.sum(), w)[0].isfinite().all()


def test_an_image_is_fitted_better_at_equal_steps() -> None:
    axis = torch.linspace(-1, 1, 16)
    at = torch.cartesian_prod(axis, axis)  # (256, 2): the pixels
    image = (9 * at[:, :1]).sin() * (7 * at[:, 1:]).cos() + (at.norm(dim=1, keepdim=True) < 0.5)
    waves = torch.cat([f(2**k * 3 * at) for k in range(4) for f in (torch.sin, torch.cos)], 1)

    def fit(conditioned: bool) -> float:
        torch.manual_seed(0)
        hidden = [layer for i in range(5) for layer in (nn.Linear(64 if i else 16, 64), nn.ReLU())]
        model: nn.Module = nn.Sequential(*hidden, nn.Linear(64, 1))
        model = WeightConditioning().apply(model) if conditioned else model
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        for _ in range(150):
            optimizer.zero_grad()
            loss = (model(waves) - image).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            optimizer.step()
        return loss.item()

    assert fit(True) < fit(False) / 2


def test_a_second_time_is_refused() -> None:
    model = WeightConditioning().apply(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(NothingChanged, match="do not have it yet"):
        WeightConditioning().apply(model)
