from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import oracle_grad_norm_smooth
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import ModelError
from paper_toolbox.kit.samples import Samples
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.oracle import Array, Draw, array, fields
from paper_toolbox.testing.sample_problem import SampleProblem, data, flat, half_squares, inner, net, outputs, slopes
from paper_toolbox_grad_norm_smooth import GradNormSmooth, solved
from torch import Tensor, nn


def bends(w: Array, x: Array) -> Array:
    """(b, c, P, P)."""
    t = outputs(w, x) / 3
    return np.asarray(np.einsum("bc,bcp,bcq->bcpq", -6 * t * (1 - t**2), inner(x), inner(x)))


class TestGradNormSmooth(OptimizerSuite):
    method = GradNormSmooth()
    steps = 8
    recipe: ClassVar = {
        "model": "mlp?hidden=16&depth=1",
        "batch_size": 128,
        "epochs": 2,
        "fields": {"cg_steps": 8},
    }
    oracle = staticmethod(oracle_grad_norm_smooth.grad_norm_smooth)
    ranges: ClassVar = {"gamma": st.floats(0.05, 200.0), "cg_steps": st.sampled_from([1, 2, 4, 50])}
    rtol = 1e-6  # conjugate gradients carry rounding on
    atol = 1e-8

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Batches of several sizes, one or two a step."""
        problem, method = SampleProblem.drawn(draw, sizes=(2, 5)), fields(draw, self.method, self.ranges)
        start, step = array(problem.start), oracle_grad_norm_smooth.grad_norm_smooth
        yield problem.end(method), step(start, outputs, slopes, bends, *problem.given, **vars(method))


@pytest.mark.exact
def test_without_a_hessian_a_step_is_as_long_as_gamma() -> None:
    """H = 0: x ← x - γ g / |g|; γ doubles where the step is taken."""
    model, (x, y) = net(), data()
    optimizer: Any = GradNormSmooth(hessian="none", gamma=0.01).build(model.parameters())
    for gamma in (0.01, 0.02, 0.04):
        before = flat(model)
        optimizer.step(Samples(model, [(x, y)], F.cross_entropy))
        torch.testing.assert_close((flat(model) - before).norm().item(), gamma, rtol=1e-5, atol=0)
    assert optimizer.common["gamma"] == 0.08


@pytest.mark.exact
@pytest.mark.parametrize("hessian", ["ggn", "exact", "none"])
def test_each_step_obeys_the_inequality(hessian: Any) -> None:
    """Algorithm 1, line 6: f(x) - f(x⁺) ≥ |∇f(x⁺)|² / 8λ with λ = |∇f(x)| / γ; γ is half the next one's."""
    model, (x, y) = net(), data()
    samples: Any = Samples(model, [(x, y)], half_squares)
    optimizer: Any = GradNormSmooth(hessian=hessian, gamma=30.0).build(model.parameters())

    def now() -> tuple[float, float]:
        loss = samples()
        return loss.item(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm()

    value, norm = now()
    for _ in range(8):
        torch.testing.assert_close(optimizer.step(samples).item(), value)
        after, new = now()
        lam = norm / (optimizer.common["gamma"] / 2)
        assert value - after >= new**2 / 8 / lam * (1 - 1e-6)
        value, norm = after, new


@pytest.mark.exact
def test_a_convex_problem_is_solved_in_a_few_newton_steps_and_gauss_newton_is_newton_there() -> None:
    """Section 4: of a linear model the Gauss-Newton matrix is the Hessian; γ doubles, λ falls faster than linearly."""
    x, y = data(30)
    ends = []
    for hessian in ("ggn", "exact"):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3).double()
        samples: Any = Samples(layer, [(x, y)], lambda z, t: F.cross_entropy(z, t) + 0.05 * z.square().mean())
        optimizer: Any = GradNormSmooth(hessian=hessian).build(layer.parameters())
        for _ in range(9):
            optimizer.step(samples)
        slopes_ = torch.autograd.grad(samples(), list(layer.parameters()))
        assert max(g.abs().max().item() for g in slopes_) < 1e-8
        ends.append(flat(layer))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-7)


@pytest.mark.exact
def test_conjugate_gradients_give_the_dense_solution() -> None:
    """(H + λI) d = -g: to 1e-6 of the norm of g; an indefinite matrix gives nothing."""
    draw = torch.Generator().manual_seed(0)
    root, g = torch.randn(9, 9, generator=draw).double(), torch.randn(9, generator=draw).double()
    h, eye = root @ root.T, torch.eye(9).double()
    calls: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        calls.append(v)
        return h @ v

    found = solved(product, 0.3, g, 40)
    assert found is not None
    assert ((h + 0.3 * eye) @ found + g).norm() <= 1e-6 * g.norm()
    assert len(calls) <= 12
    torch.testing.assert_close(found, -torch.linalg.solve(h + 0.3 * eye, g), rtol=1e-4, atol=1e-5)
    assert solved(lambda v: h @ v - 5 * v, 0.3, g, 40) is None
    assert solved(lambda v: -0.3 * v, 0.3, g, 40) is None, "nor is a singular one positive definite"


def test_a_loss_that_only_rises_ends_where_it_began_after_forty_trials() -> None:
    layer = nn.Linear(4, 3).double()
    before, (x, y) = flat(layer), data()
    calls: list[float] = []

    def score(z: Tensor, targets: Tensor) -> Tensor:
        calls.append(z.detach().sum().item())
        return F.cross_entropy(z, targets) + len(calls)  # higher each time

    optimizer: Any = GradNormSmooth(hessian="none", gamma=4.0).build(layer.parameters())
    optimizer.step(Samples(layer, [(x, y)], score))
    assert torch.equal(flat(layer), before)
    assert (len(calls), optimizer.common["gamma"]) == (41, 4.0 / 2**40)


def test_a_last_step_that_does_not_rise_is_taken() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    start = flat(model).item()
    samples: Any = Samples(model, [(torch.ones(1, 1).double(), torch.ones(1))], lambda z, _: LEVEL(z).sum())
    optimizer: Any = GradNormSmooth(hessian="none").build(model.parameters())
    optimizer.step(samples)  # the loss stays, and its slope does not: no trial is good enough
    assert flat(model).item() == pytest.approx(start - 2.0**-39, abs=2e-8)
    assert flat(model).item() != start


class Level(torch.autograd.Function):
    """0 with a slope of 1."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


LEVEL: Any = Level.apply


def test_the_loss_of_all_batches_is_returned() -> None:
    model = net()
    samples = Samples(model, [data(5), data(3)], F.cross_entropy)
    expected, optimizer = samples().detach(), GradNormSmooth(hessian="exact").build(model.parameters())
    found: Any = optimizer.step(samples)  # type: ignore[arg-type]  # torch asks for floats
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_nowhere_to_go_nothing_moves() -> None:
    model, (x, y) = net(), data()
    before = flat(model)
    optimizer: Any = GradNormSmooth().build(model.parameters())
    optimizer.step(Samples(model, [(x, y)], lambda z, _: 0 * z.sum()))
    assert torch.equal(flat(model), before)
    assert optimizer.common["gamma"] == 1.0


@pytest.mark.parametrize("hessian", ["ggn", "exact"])
def test_a_linear_loss_has_no_curvature_and_unused_parameters_are_no_error(hessian: Any) -> None:
    layer: Any = nn.Linear(4, 3).double()
    x, y = data()
    layer.register_parameter("spare", nn.Parameter(torch.ones(2).double()))
    before = flat(layer)
    optimizer: Any = GradNormSmooth(hessian=hessian, gamma=0.5).build(layer.parameters())
    optimizer.step(Samples(layer, [(x, y)], lambda z, _: z[:, 0].mean()))
    torch.testing.assert_close((flat(layer) - before).norm().item(), 0.5, rtol=1e-6, atol=0)
    assert layer.spare.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("hessian", ["ggn", "exact", "none"])
def test_all_passes_draw_one_mask_and_statistics_move_once(hessian: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    twin, (x, y) = copy.deepcopy(model), data()
    seen: list[Tensor] = []

    def score(z: Tensor, targets: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return F.cross_entropy(z, targets) + len(seen)  # every trial is refused: all are run, and taken back

    optimizer: Any = GradNormSmooth(hessian=hessian, gamma=1e-13).build(model.parameters())
    for _ in range(2):
        optimizer.step(Samples(model, [(x, y)], score))
        after = twin(x)
    torch.testing.assert_close(list(model.buffers()), list(twin.buffers()))
    torch.testing.assert_close(seen[0], seen[40], rtol=0, atol=1e-6)
    assert not torch.allclose(seen[0], seen[41], atol=1e-3), "the next step has masks of its own"
    assert not torch.allclose(seen[41], after, atol=1e-3), "and so has what follows it"


def test_parameters_from_elsewhere_are_refused() -> None:
    optimizer: Any = GradNormSmooth().build([nn.Parameter(torch.ones(3))])
    with pytest.raises(ModelError, match=r"shape \(3,\) is not"):
        optimizer.step(Samples(net(), [data()], F.cross_entropy))


def test_attention_has_a_curvature() -> None:
    layer, x = nn.Linear(4, 4).double(), torch.randn(2, 3, 4, dtype=torch.float64)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer: Any = layer

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)[:, None]
            return F.scaled_dot_product_attention(y, y, y).mean((1, 2))

    samples: Any = Samples(Model(), [(x, torch.arange(2))], F.cross_entropy)
    before = samples().item()
    optimizer: Any = GradNormSmooth(hessian="exact").build(layer.parameters())
    optimizer.step(samples)
    assert samples().item() < before
