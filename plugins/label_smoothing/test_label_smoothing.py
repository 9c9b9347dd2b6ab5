"""Label smoothing against its definition, torch's, and the optimum that the paper derives."""

import math

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.testing.loss import LossSuite
from paper_toolbox_label_smoothing import LabelSmoothing


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestLabelSmoothing(LossSuite):
    method = LabelSmoothing()


def slow(logits: list[list[float]], targets: list[list[float]], alpha: float) -> float:
    """-Σ_k q_k log p_k with q = (1 - α) t + α / K, mean over the rows."""
    total = 0.0
    for z, t in zip(logits, targets, strict=True):
        norm = math.log(sum(math.exp(v) for v in z))
        total -= sum(((1 - alpha) * t[k] + alpha / len(z)) * (z[k] - norm) for k in range(len(z)))
    return total / len(logits)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_is_cross_entropy_with_smoothed_targets(alpha: float) -> None:
    logits, targets = torch.randn(9, 6, dtype=torch.float64), torch.randint(6, (9,))
    soft = torch.randn(9, 6, dtype=torch.float64).softmax(1)
    loss = LabelSmoothing(alpha=alpha)
    assert loss(logits, targets).item() == pytest.approx(slow(logits.tolist(), F.one_hot(targets, 6).tolist(), alpha))
    assert loss(logits, soft).item() == pytest.approx(slow(logits.tolist(), soft.tolist(), alpha))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_equals_torch_with_gradient(dtype: torch.dtype, within: float) -> None:
    logits, targets = torch.randn(128, 10, dtype=dtype, requires_grad=True), torch.randint(10, (128,))
    for t in (targets, torch.randn(128, 10, dtype=dtype).softmax(1)):
        ours, theirs = LabelSmoothing(alpha=0.1)(logits, t), F.cross_entropy(logits, t, label_smoothing=0.1)
        torch.testing.assert_close(ours, theirs, atol=within, rtol=within)
        (g,), (h,) = torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits)
        torch.testing.assert_close(g, h, atol=within, rtol=within)


def test_the_optimum_keeps_finite_and_equal_gaps() -> None:
    """At the minimum z_y - z_k = log(1 + K (1 - α) / α) for every k ≠ y: cross-entropy alone would drive it to ∞."""
    k, alpha = 7, 0.1
    logits = torch.randn(1, k, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.SGD([logits], lr=2.0)
    for _ in range(4000):
        descent.zero_grad()
        LabelSmoothing(alpha=alpha)(logits, torch.tensor([2])).backward()
        descent.step()
    z = logits.detach()[0]
    gap = math.log(1 + k * (1 - alpha) / alpha)
    assert [z[2].item() - z[i].item() for i in range(k) if i != 2] == pytest.approx([gap] * (k - 1))
