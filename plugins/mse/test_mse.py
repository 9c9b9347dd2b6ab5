"""Mean squared error against its definition, and against torch's."""

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.testing.loss import LossSuite
from paper_toolbox_mse import MeanSquaredError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestMeanSquaredError(LossSuite):
    method = MeanSquaredError()


def test_is_the_mean_square_of_the_difference() -> None:
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    slow = sum((a[i, j].item() - b[i, j].item()) ** 2 for i in range(5) for j in range(3)) / 15
    assert MeanSquaredError()(a, b).item() == pytest.approx(slow)


def test_its_minimiser_is_the_mean_and_not_the_median() -> None:
    seen = torch.tensor([[0.0], [0.0], [0.0], [1.0], [9.0]], dtype=torch.float64)
    guess = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.SGD([guess], lr=0.3)
    for _ in range(100):
        descent.zero_grad()
        MeanSquaredError()(guess.expand(5, 1), seen).backward()
        descent.step()
    assert guess.item() == pytest.approx(2.0)


def test_equals_torch_and_survives_float16() -> None:
    a, b = torch.randn(64, 2), torch.randn(64, 2)
    assert torch.equal(MeanSquaredError()(a, b), F.mse_loss(a, b))
    assert F.mse_loss(1e3 * a.half(), b.half()).isinf()
    assert MeanSquaredError()(1e3 * a.half(), b.half()).isfinite()
