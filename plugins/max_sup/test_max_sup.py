"""MaxSup against its definition and its exact relation to label smoothing."""

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.testing.loss import LossSuite
from paper_toolbox_max_sup import MaxSup


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestMaxSup(LossSuite):
    method = MaxSup()


class TestMaxSupAlone(LossSuite):
    method = MaxSup(alpha_start=0.0, alpha_end=1.0)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(40, 6, dtype=torch.float64), torch.arange(40) % 6


def test_penalty_is_the_height_of_the_largest_logit_over_the_mean() -> None:
    logits, targets = batch()
    rows = logits.tolist()
    height = sum(max(z) - sum(z) / len(z) for z in rows) / len(rows)
    got = MaxSup(alpha_start=0.3)(logits, targets) - F.cross_entropy(logits, targets)
    assert got.item() == pytest.approx(0.3 * height)


def test_is_label_smoothing_where_the_prediction_is_right() -> None:
    logits, _ = batch()
    loss = MaxSup(alpha_start=0.1)(logits, logits.argmax(1))
    torch.testing.assert_close(loss, F.cross_entropy(logits, logits.argmax(1), label_smoothing=0.1))


def test_is_larger_by_the_gap_to_the_largest_logit_where_it_is_wrong() -> None:
    logits, targets = batch()
    for i in range(len(logits)):
        row, y = logits[i : i + 1], targets[i : i + 1]
        more = MaxSup(alpha_start=0.1)(row, y) - F.cross_entropy(row, y, label_smoothing=0.1)
        gap = max(row[0].tolist()) - row[0, y].item()
        assert more.item() == pytest.approx(0.1 * gap, abs=1e-12)


def test_gradient_of_the_penalty_falls_on_the_largest_logit_alone() -> None:
    logits, targets = batch()
    logits.requires_grad_()
    penalty = MaxSup(alpha_start=0.2)(logits, targets) - F.cross_entropy(logits, targets)
    (g,) = torch.autograd.grad(40 * penalty, logits)
    expected = torch.full_like(g, -0.2 / 6)
    expected[range(40), logits.argmax(1)] = 0.2 * (1 - 1 / 6)
    torch.testing.assert_close(g, expected)


def test_shifting_all_logits_changes_nothing() -> None:
    logits, targets = batch()
    torch.testing.assert_close(MaxSup()(logits + 7.5, targets), MaxSup()(logits, targets))


@pytest.mark.parametrize(("progress", "alpha"), [(None, 0.1), (0.0, 0.1), (0.5, 0.2), (1.0, 0.3)])
def test_weight_runs_from_start_to_end(progress: float | None, alpha: float) -> None:
    logits, targets = batch()
    there = MaxSup(alpha_start=0.1, alpha_end=0.3)(logits, targets, progress=progress)
    torch.testing.assert_close(there, MaxSup(alpha_start=alpha, alpha_end=alpha)(logits, targets))


def test_mixed_labels_change_the_cross_entropy_only() -> None:
    logits, targets = batch()
    mixed = 0.7 * F.one_hot(targets, 6) + 0.3 * F.one_hot(targets.flip(0), 6).double()
    penalty = MaxSup()(logits, targets) - F.cross_entropy(logits, targets)
    torch.testing.assert_close(MaxSup()(logits, mixed), F.cross_entropy(logits, mixed) + penalty)
