from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import oracle_deepzero
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.oracle import Array, Draw, array, fields
from paper_toolbox_deepzero import DeepZero
from torch import Tensor, nn

PLAIN = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


class TestDeepZero(OptimizerSuite):
    method = DeepZero(lr=0.3, momentum=0.5, mu=0.5, sparsity=0.5, q=4)
    steps = 20  #: of ten epochs
    recipe: ClassVar = {
        "data": "wine",
        "model": "mlp?hidden=4&depth=1",
        "epochs": 6,
        "fields": {"lr": 0.1, "mu": 0.005},
    }
    oracle = staticmethod(oracle_deepzero.deepzero)
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.2),
        "weight_decay": st.floats(0.0, 0.3),
        "mu": st.floats(0.01, 0.5),
        "sparsity": st.floats(0.0, 0.95),
        "mask_interval": st.integers(1, 3),
        "q": st.integers(1, 3),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """The oracle gets the orders and directions that the method draws. An epoch has two steps."""
        made, method = Problem.drawn(draw), fields(draw, self.method, self.ranges)
        seed, steps = draw(st.integers(0, 2**31)), draw(st.integers(1, 6))
        random, starts = torch.Generator().manual_seed(seed), made.starts
        slopes = [torch.randn(steps, *x.shape, generator=random, dtype=torch.float64) for x in starts]
        torch.manual_seed(seed)
        ours = self.trajectory(Problem(starts, slopes, made.pull), method, None)
        torch.manual_seed(seed)
        drawn = [draws(method, t, starts) for t in range(steps)]

        def loss(w: list[Array], t: int) -> float:
            terms = [
                (s[t - 1].numpy() * x).sum() + made.pull / 2 * (x * x).sum() for s, x in zip(slopes, w, strict=True)
            ]
            return float(sum(terms))

        expected = oracle_deepzero.deepzero([array(x) for x in starts], loss, drawn, 2, **vars(method))
        yield from zip(ours, expected, strict=True)


def draws(method: DeepZero, t: int, tensors: list[Tensor]) -> dict[str, Any]:
    """What step t + 1 draws from the global generator's state now."""
    random = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    weights = [i for i, x in enumerate(tensors) if x.ndim > 1]

    def directions(of: list[Tensor]) -> list[list[Array]]:
        return [[array(torch.randn(x.shape, dtype=x.dtype, generator=random)) for x in of] for _ in range(method.q)]

    if method.estimator == "rge":
        return {"u": directions(tensors)}
    found: dict[str, Any] = {}
    if t == 0 and method.ratios == "zo_grasp" and method.sparsity > 0 and weights:
        found["grasp"] = [directions([tensors[i] for i in weights]) for _ in range(2)]
    if t % (2 * method.mask_interval) == 0:
        found["orders"] = {i: torch.randperm(tensors[i].numel(), generator=random).numpy() for i in weights}
    return found


def estimate(method: DeepZero, *tensors: Tensor, loss: Any) -> tuple[list[Tensor], int]:
    """The gradient that one step of plain descent uses, and how many losses it looked at."""
    points, looked = [nn.Parameter(x.clone()) for x in tensors], 0

    def closure() -> Tensor:
        nonlocal looked
        looked += 1
        value: Tensor = loss(*points)
        return value

    optimizer: Any = method.build(points)
    optimizer.step(closure)
    return [x - p.detach() for x, p in zip(tensors, points, strict=True)], looked


def net_and_batch() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    return net, torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3


@pytest.mark.exact
def test_of_a_quadratic_it_is_the_gradient_and_half_the_curvature() -> None:
    """CGE: (l(w + μ eᵢ) - l(w))/μ = ∇ᵢ + μ/2 Hᵢᵢ where l is quadratic; d + 1 losses for d coordinates."""
    torch.manual_seed(0)
    root, w = torch.randn(6, 6, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    hessian = root @ root.T
    method = DeepZero(**PLAIN, mu=0.1, sparsity=0.0)
    (g,), looked = estimate(method, w, loss=lambda p: p.flatten() @ hessian @ p.flatten() / 2)
    expected = hessian @ w.flatten() + 0.05 * hessian.diagonal()
    torch.testing.assert_close(g.flatten(), expected, rtol=1e-10, atol=1e-10)
    assert looked == 7


@pytest.mark.exact
def test_of_a_net_it_is_what_backpropagation_finds() -> None:
    """Section 3: coordinate-wise differences agree with the gradient, BatchNorm in training mode."""
    net, x, y = net_and_batch()
    slopes = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer: Any = DeepZero(**PLAIN, mu=1e-5, sparsity=0.0).build(net.parameters(), model=net)
    optimizer.step(lambda: F.cross_entropy(net(x), y))
    for w, p, slope in zip(before, net.parameters(), slopes, strict=True):
        torch.testing.assert_close(w - p.detach(), slope, rtol=0, atol=1e-4)


@pytest.mark.exact
def test_random_directions_give_the_gradient_on_average() -> None:
    """RGE: E[(l(w + μ u) - l(w))/μ · u] = ∇l for a linear l; q + 1 losses."""
    torch.manual_seed(0)
    slope = torch.randn(5, dtype=torch.float64)
    method = DeepZero(**PLAIN, estimator="rge", q=5000)
    (g,), looked = estimate(method, torch.zeros(5, dtype=torch.float64), loss=lambda p: p @ slope)
    assert (g - slope).norm() < 0.1 * slope.norm()
    assert looked == 5001


@pytest.mark.exact
@pytest.mark.parametrize("ratios", ["uniform", "zo_grasp"])
def test_active_weights_alone_move_and_change_every_few_epochs(ratios: Any) -> None:
    """Section 4: 1 - S of the weights are active, the layers' shares stay, and every K epochs others are drawn."""
    torch.manual_seed(0)
    starts = [torch.randn(10, 10), torch.randn(4, 5), torch.randn(30)]
    points = [nn.Parameter(x.clone()) for x in starts]
    method = DeepZero(lr=0.1, momentum=0.0, weight_decay=0.0, sparsity=0.73, ratios=ratios, mask_interval=2, q=10)
    optimizer: Any = method.build(points, steps_per_epoch=3)
    seen, counts = [], []
    for _ in range(13):
        before = [p.detach().clone() for p in points]
        optimizer.step(lambda: sum((p + 9).square().sum() for p in points))
        moved = [b != p for b, p in zip(before, points, strict=True)]
        assert moved[2].all(), "vectors are active as a whole"
        seen.append(torch.cat([m.flatten() for m in moved[:2]]))
        counts.append([int(m.sum()) for m in moved[:2]])
    assert [i for i in range(1, 13) if not torch.equal(seen[i], seen[i - 1])] == [6, 12]
    assert all(count == counts[0] for count in counts)
    assert sum(counts[0]) == 32, "120 less 87.6, rounded"
    if ratios == "uniform":
        assert counts[0] == [27, 5]


@pytest.mark.exact
def test_zo_grasp_gives_the_weights_to_the_layer_that_matters() -> None:
    """ZO-GraSP: of w ⊙ H ∇l only the curved layer has any, and keeps its numbers; 2 q + 2 losses."""
    torch.manual_seed(0)
    curved, flat = torch.full((4, 5), 5.0, dtype=torch.float64), torch.full((4, 20), 1e-3, dtype=torch.float64)
    method = DeepZero(**PLAIN, sparsity=0.8, q=50, mu=0.01)
    moves, looked = estimate(method, curved, flat, loss=lambda a, b: a.square().sum() + b.sum())
    assert [int((m != 0).sum()) for m in moves] == [20, 0]
    assert looked == 1 + (2 * 50 + 2) + 20


@pytest.mark.exact
def test_zo_grasp_looks_a_step_of_mu_up_the_slope() -> None:
    """ZO-GraSP: the second estimate is made at w + μ ∇̂l(w)."""
    w, seen = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), []

    def loss(p: Tensor) -> Tensor:
        seen.append(p.detach().clone())
        return (p * torch.tensor([3.0, 1.0, -2.0])).sum()

    estimate(DeepZero(**PLAIN, sparsity=0.5, q=1, mu=0.01), w, loss=loss)
    slope = (loss(seen[2]) - loss(w)) / 0.01  # along u, of length μ away from w
    torch.testing.assert_close(seen[3] - w, slope * (seen[2] - w), rtol=1e-9, atol=1e-12)


def test_momentum_and_decay_are_those_of_sgd() -> None:
    """On a linear loss, whose differences are exact, the steps are torch.optim.SGD's."""
    start, slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([0.5, 1.0, -2.0]).double()
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one: Any = DeepZero(lr=0.1, momentum=0.8, weight_decay=0.2).build([ours])
    two = torch.optim.SGD([theirs], lr=0.1, momentum=0.8, weight_decay=0.2)
    for _ in range(5):
        one.step(lambda: ours @ slope)
        theirs.grad = slope.clone()
        two.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
