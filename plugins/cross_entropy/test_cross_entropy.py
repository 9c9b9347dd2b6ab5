"""Cross-entropy against its definition, and against torch's."""

import math

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.testing.loss import LossSuite
from paper_toolbox_cross_entropy import CrossEntropy


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestCrossEntropy(LossSuite):
    method = CrossEntropy()


def slow(logits: list[list[float]], targets: list[list[float]]) -> float:
    """-Σ_k t_k log(e^z_k / Σ_j e^z_j), mean over the rows."""
    total = 0.0
    for z, t in zip(logits, targets, strict=True):
        total -= sum(t_k * math.log(math.exp(z_k) / sum(map(math.exp, z))) for z_k, t_k in zip(z, t, strict=True))
    return total / len(logits)


def test_is_minus_the_log_of_the_right_probability() -> None:
    logits, targets = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0, 3])
    soft = torch.rand(7, 4, dtype=torch.float64).softmax(1)
    assert CrossEntropy()(logits, targets).item() == pytest.approx(slow(logits.tolist(), F.one_hot(targets).tolist()))
    assert CrossEntropy()(logits, soft).item() == pytest.approx(slow(logits.tolist(), soft.tolist()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torch(dtype: torch.dtype) -> None:
    logits, targets = torch.randn(64, 10, dtype=dtype), torch.randint(10, (64,))
    assert torch.equal(CrossEntropy()(logits, targets), F.cross_entropy(logits, targets))


def test_float16_does_not_overflow_where_torch_does() -> None:
    logits = torch.tensor([[1e4, -1e4]] * 16).half()
    wrong = torch.ones(16, dtype=torch.int64)
    assert F.cross_entropy(logits, wrong).isinf()
    assert CrossEntropy()(logits, wrong).item() == pytest.approx(2e4)
