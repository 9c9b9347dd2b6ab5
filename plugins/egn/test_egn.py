from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import oracle_egn
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import ModelError, NeedError
from paper_toolbox.kit.samples import Samples
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.oracle import Draw, array, fields
from paper_toolbox.testing.sample_problem import SampleProblem, data, flat, half_squares, outputs, slopes
from paper_toolbox_egn import EGN, direction
from torch import Tensor, nn


class TestEGN(OptimizerSuite):
    method = EGN()
    steps = 30
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 2, "fields": {"lr": 0.5, "lam": 0.1}}
    oracle = staticmethod(oracle_egn.egn)
    ranges: ClassVar = {
        "lr": st.floats(0.05, 3.0),
        "lam": st.floats(0.01, 3.0),
        "memory": st.just(4.0),
        "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Batches of several sizes, one or two a step: fewer outputs than parameters, and more."""
        problem, method = SampleProblem.drawn(draw), fields(draw, self.method, self.ranges)
        expected = oracle_egn.egn(array(problem.start), outputs, slopes, *problem.given, **vars(method))
        yield problem.end(method), expected


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.GroupNorm(2, 8), nn.Linear(8, 3)).double()


@pytest.mark.exact
@pytest.mark.parametrize("outputs_", [10, 40])
def test_the_small_system_gives_the_dense_solution(outputs_: int) -> None:
    """Eq. 11: -Jᵀ (bλI + QJJᵀ)⁻¹ r is -(JᵀQJ / b + λI)⁻¹ Jᵀr / b, with fewer outputs than parameters and with more."""
    draw = torch.Generator().manual_seed(2)
    jacobian = torch.randn(outputs_, 20, generator=draw, dtype=torch.float64)
    root = torch.randn(outputs_ // 5, 5, 5, generator=draw, dtype=torch.float64)
    r, q, lam = (
        torch.randn(outputs_, generator=draw).double(),
        torch.block_diag(*(root @ root.mT)),
        torch.full((20,), 0.03).double(),
    )
    dense = jacobian.T @ q @ jacobian + lam.diag()  # type: ignore[no-untyped-call]  # torch's own signature
    expected = -torch.linalg.inv(dense) @ jacobian.T @ r
    torch.testing.assert_close(direction(r, q, jacobian, lam), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.exact
def test_one_step_solves_linear_least_squares() -> None:
    """Section 2: the Gauss-Newton matrix of a linear model is its Hessian, so that λ → 0 leads to the minimum."""
    x, _ = data(30)
    y = x.sin()
    layer = nn.Linear(4, 4).double()
    EGN(lam=1e-9).build(layer.parameters()).step(Samples(layer, [(x, y)], F.mse_loss))
    best = torch.linalg.lstsq(torch.cat([x, torch.ones(30, 1).double()], 1), y).solution
    torch.testing.assert_close(torch.cat([layer.weight.T, layer.bias[None]]).detach(), best, rtol=1e-6, atol=1e-7)


@pytest.mark.exact
@pytest.mark.parametrize("size", [2, 60])
def test_strong_damping_is_gradient_descent(size: int) -> None:
    """λ d → -∇L as λ → ∞, for a net and cross-entropy, in both systems; groups have λ and α of their own."""
    model, (x, y) = net(), data(size)
    loss = F.cross_entropy(model(x), y)
    expected = [-g for g in torch.autograd.grad(loss, list(model.parameters()))]
    before = [p.detach().clone() for p in model.parameters()]
    groups = [
        {"params": list(model[0].parameters()), "lam": 1e10, "lr": 1e10},  # type: ignore[index]  # a Sequential
        {"params": [*model[2].parameters(), *model[3].parameters()], "lam": 1e9, "lr": 1e9},  # type: ignore[index]  # ditto
    ]
    found = EGN().build(groups).step(Samples(model, [(x, y)], F.cross_entropy))
    torch.testing.assert_close(found, loss.detach())
    moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.exact
def test_every_step_with_the_line_search_descends() -> None:
    """λ > 0 makes the matrix positive definite: dᵀ∇L < 0, and the search ends below the start."""
    model, (x, y) = net(), data()
    samples: Any = Samples(model, [(x, y)], F.cross_entropy)
    optimizer = EGN(lr=4.0, lam=1e-2, line_search=True, adaptive=True).build(model.parameters())
    found = [samples().item()]
    for _ in range(20):
        optimizer.step(samples)
        found.append(samples().item())
    assert all(b < a for a, b in itertools.pairwise(found))
    assert found[-1] < 1e-3


def test_a_loss_without_curvature_and_one_of_a_step_size_of_zero() -> None:
    model, (x, y) = net(), data(6)
    plain: Any = Samples(model, [(x, y)], lambda z, _: z[:, 0].mean())
    slopes_ = torch.autograd.grad(plain(), list(model.parameters()), allow_unused=True)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = EGN(lam=0.5, lr=0.1).build(model.parameters())
    optimizer.step(plain)
    for p, b, g in zip(model.parameters(), before, slopes_, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.2 * g)
    still = EGN(lr=0.0, line_search=True, adaptive=True).build(model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    still.step(plain)
    assert all(map(torch.equal, model.parameters(), before))
    assert still.common["damping"] == 1.0


def test_damping_falls_where_the_quadratic_model_is_right_and_rises_where_it_is_not() -> None:
    """Of a linear model's squares it is, at any share of the step; far away in a net's cross-entropy it is not."""
    layer, (x, y) = nn.Linear(4, 3).double(), data(6)
    for lr, search in ((1.0, False), (4.0, True)):
        optimizer: Any = EGN(lr=lr, lam=1e-3, adaptive=True, line_search=search).build(layer.parameters())
        optimizer.step(Samples(layer, [(x, y)], half_squares))
        assert optimizer.common["damping"] == 0.99
    assert optimizer.common["share"] < 1.0
    model = net()
    far: Any = EGN(lr=1e3, adaptive=True).build(model.parameters())
    far.step(Samples(model, [(x, y)], F.cross_entropy))
    assert far.common["damping"] == 1.01


def test_damping_has_a_floor() -> None:
    layer, (x, y) = nn.Linear(4, 3).double(), data(6)
    optimizer: Any = EGN(adaptive=True).build(layer.parameters())
    optimizer.common["damping"] = 1e-8
    optimizer.step(Samples(layer, [(x, y)], half_squares))  # the quadratic model is exact: λ is to fall
    assert optimizer.common["damping"] == 1e-8


def test_dropout_masks_are_one_within_a_line_search_and_the_batch_may_be_a_dictionary() -> None:
    torch.manual_seed(0)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.frozen = nn.Linear(4, 3).double(), nn.Parameter(torch.ones(1).double(), False)

        def forward(self, *, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x) * self.frozen, 0.5)

    model, (x, y) = Named(), data(6)
    optimizer: Any = EGN(lr=0.0, line_search=True).build(p for p in model.parameters() if p.requires_grad)
    optimizer.step(Samples(model, [({"x": x}, y)], F.cross_entropy))
    assert optimizer.common["share"] == 1.0, "one loss at one place"


def test_a_plain_step_runs_the_model_once_a_batch_and_keeps_no_state() -> None:
    model, runs = net(), []
    samples: Any = Samples(model, [data(6), data(3)], F.cross_entropy)
    expected = samples().detach()
    model.register_forward_hook(lambda *_: runs.append(1))
    optimizer: Any = EGN().build(model.parameters())
    found = optimizer.step(samples)
    assert len(runs) == 2
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(state == {"step": 1} for state in optimizer.state.values())


def test_a_line_search_that_finds_nothing_ends_after_fifteen_cuts() -> None:
    model, (x, y) = net(), data()
    optimizer: Any = EGN(lr=1e6, lam=0.01, line_search=True).build(model.parameters())
    optimizer.step(Samples(model, [(x, y)], half_squares))
    assert optimizer.common["share"] == pytest.approx(0.8**15)


def test_half_precision_is_solved_in_single() -> None:
    model, (x, y) = net(), data(5)
    twin: Any = copy.deepcopy(model).bfloat16()
    EGN().build(model.parameters()).step(Samples(model, [(x, y)], F.cross_entropy))
    EGN(momentum=0.9).build(twin.parameters()).step(Samples(twin, [(x.bfloat16(), y)], F.cross_entropy))
    torch.testing.assert_close(flat(twin).double(), flat(model), rtol=0.02, atol=0.02)


def test_what_cannot_be_is_named() -> None:
    (x, y), mixed = data(6), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    samples: Any = Samples(mixed, [(x, y)], F.cross_entropy)
    with pytest.raises(ModelError, match="samples of a batch see each other"):
        EGN().build(mixed.parameters()).step(samples)
    mixed.eval()
    EGN().build(mixed.parameters()).step(samples)
    mixed[1].track_running_stats = False  # type: ignore[assignment]  # of a BatchNorm
    with pytest.raises(ModelError, match="samples of a batch see each other"):
        EGN().build(mixed.parameters()).step(samples)
    with pytest.raises(ModelError, match=r"shape \(3,\) is not the model's"):
        EGN().build([nn.Parameter(torch.ones(3))]).step(Samples(net(), [(x, y)], F.cross_entropy))


def test_a_jacobian_beyond_memory_is_refused_before_it_is_made() -> None:
    model, (x, y) = net(), data(6)
    pairs = [(x, y), (x, y)]
    needed = 12 * 3 * (sum(p.numel() for p in model.parameters()) + 12 * 3) * 8 / 2**30
    samples: Any = Samples(model, pairs, F.cross_entropy)
    EGN(memory=needed * 1.01).build(model.parameters()).step(samples)
    with pytest.raises(NeedError, match=f"J and Q take {needed:.3g} GiB, memory = .*: 99% of it fits"):
        EGN(memory=needed * 0.99).build(model.parameters()).step(samples)
