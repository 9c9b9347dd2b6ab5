from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import oracle_greedy_bcd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import NeedError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.oracle import Array, Draw, array, fields
from paper_toolbox_greedy_bcd import GreedyBCD
from paper_toolbox_greedy_bcd.bound import gain, move
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn


class BCD(OptimizerSuite):
    method = GreedyBCD()
    whole_way: ClassVar = False
    oracle = staticmethod(oracle_greedy_bcd.greedy_bcd)
    ranges: ClassVar = {
        "lipschitz": st.none() | st.floats(0.3, 3.0),
        "start": st.floats(0.06, 0.45),
        "tau": st.none() | st.integers(1, 6),
        "l1": st.just(0.0) | st.floats(0.1, 2.0),
    }

    def rules(self) -> list[str]:
        return ["gs", "gsl", "cyclic", "random"]

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """The oracle sees one vector, and is told the loss; ``random`` gets the numbers that the method draws."""
        ranges = {**self.ranges, "rule": st.sampled_from(self.rules())}
        problem, method, seed = Problem.drawn(draw), fields(draw, self.method, ranges), draw(st.integers(0, 2**31))
        torch.manual_seed(seed)
        ours = self.trajectory(problem, method, None)
        torch.manual_seed(seed)
        sizes = [p.numel() for p in ours]
        draws = [torch.rand(sum(sizes) if method.tau else len(ours)).tolist() for _ in range(problem.steps)]
        slopes = np.concatenate([array(s).reshape(problem.steps, -1) for s in problem.slopes], 1)

        def loss(w: Array, t: int) -> float:
            return float(slopes[t - 1] @ w + problem.pull / 2 * w @ w)

        def gradient(w: Array, t: int) -> Array:
            return np.asarray(slopes[t - 1] + problem.pull * w)

        start = np.concatenate([array(x).ravel() for x in problem.starts])
        owner = [b for b, size in enumerate(sizes) for _ in range(size)]
        d = np.concatenate([array(self.diagonal(x)).ravel() for x in problem.starts])
        expected = oracle_greedy_bcd.greedy_bcd(start, owner, d, loss, gradient, draws, **vars(method))
        yield torch.cat([p.flatten() for p in ours]), expected

    def diagonal(self, p: Tensor) -> Tensor:
        return torch.ones_like(p)


class TestGreedyBCD(BCD):
    method = GreedyBCD()
    whole_way: ClassVar = True
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "fields": {"start": 0.1}}


class TestGiven(OptimizerSuite):
    method = GreedyBCD(lipschitz=2.0, tau=3)


class TestDiagonal(BCD):
    method = GreedyBCD(rule="gsd", lipschitz=1.5)

    def rules(self) -> list[str]:
        return ["gsd"]

    def build(self, model: nn.Module, params: Iterable[Any] | None = None, engine: str = "eager") -> Any:
        groups: list[Any] = list(model.parameters()) if params is None else list(params)
        groups = [g if isinstance(g, dict) else {"params": [g]} for g in groups]
        return self.method.build([g | {"diagonal": [self.diagonal(p) for p in g["params"]]} for g in groups])

    def diagonal(self, p: Tensor) -> Tensor:
        return 1 + torch.arange(p.numel(), dtype=torch.float64).reshape(p.shape).sin().abs()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Coupled:
    """wᵀ A w / 2 - bᵀ w of three tensors of two numbers each."""

    def __init__(self, seed: int = 0) -> None:
        root = noise(6, 6, seed=seed)
        self.a, self.b = root @ root.T / 6 + torch.diag(torch.arange(6.0).double()), noise(6, seed=seed + 1)
        self.parts: list[Any] = [nn.Parameter(x.clone()) for x in noise(3, 2, seed=seed + 2)]
        self.inside = [self.a[i : i + 2, i : i + 2] for i in (0, 2, 4)]

    def __call__(self) -> Tensor:
        w = torch.cat(self.parts)
        return w @ self.a @ w / 2 - self.b @ w

    def gradient(self) -> Tensor:
        """(3, 2)."""
        return torch.stack(torch.autograd.grad(self(), self.parts))

    def stepped(self, method: GreedyBCD, groups: Any) -> tuple[int, float]:
        """Which block has moved in one step, and by how much the loss fell."""
        before, f = [p.detach().clone() for p in self.parts], self().item()
        optimizer = method.build(groups)
        for p, g in zip(self.parts, self.gradient(), strict=True):
            p.grad = g
        optimizer.step()
        (b,) = (b for b in range(3) if not torch.equal(self.parts[b], before[b]))
        return b, f - self().item()


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(5))
def test_a_block_gives_at_least_what_it_promises(seed: int) -> None:
    """Section 2: f falls by ‖g_b‖² / (2 L_b) or more, the most that a block promises (GSL); GSD likewise, in D."""
    made = Coupled(seed)
    constants = torch.stack([torch.linalg.eigvalsh(a)[-1] for a in made.inside])
    promised = made.gradient().square().sum(1) / constants / 2
    groups = [{"params": [p], "lipschitz": c.item()} for p, c in zip(made.parts, constants, strict=True)]
    b, fell = made.stepped(GreedyBCD(lipschitz=1.0), groups)
    assert b == promised.argmax()
    assert fell >= promised.max() - 1e-12
    made = Coupled(seed)
    sums = torch.stack([a.abs().sum(1) for a in made.inside])  # D - A_bb dominates its diagonal
    promised = (made.gradient().square() / sums).sum(1) / 2
    b, fell = made.stepped(GreedyBCD(rule="gsd", lipschitz=1.0), [{"params": made.parts, "diagonal": list(sums)}])
    assert b == promised.argmax()
    assert fell >= promised.max() - 1e-12


@pytest.mark.exact
def test_the_largest_gradient_is_not_the_largest_promise() -> None:
    """GS looks at ‖g_b‖ alone; GSL weighs it by L_b, and where both step by 1 / L_b it falls further."""
    fell: dict[str, float] = {}
    rules: Any = ("gs", "gsl")
    for rule in rules:
        one, two = nn.Parameter(torch.ones(2).double()), nn.Parameter(3 * torch.ones(2).double())
        groups = [{"params": [one], "lipschitz": 100.0}, {"params": [two], "lipschitz": 1.0}]
        optimizer = GreedyBCD(rule=rule, lipschitz=1.0).build(groups)
        one.grad, two.grad = 10 * one.detach(), two.detach().clone()  # of 5 ‖one‖² + ‖two‖² / 2
        optimizer.step()
        fell[rule] = 19 - 5 * one.square().sum().item() - two.square().sum().item() / 2
    assert fell == pytest.approx({"gs": 1.9, "gsl": 9.0})


@pytest.mark.exact
def test_one_block_of_everything_is_gradient_descent() -> None:
    ours, theirs = nn.Parameter(noise(4, 3)), nn.Parameter(noise(4, 3))
    one, two = GreedyBCD(lipschitz=4.0).build([ours]), torch.optim.SGD([theirs], 0.25)
    for _ in range(5):
        for p, optimizer in ((ours, one), (theirs, two)):
            p.grad = p.detach().sin()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.exact
def test_blocks_of_one_number_are_gauss_southwell() -> None:
    """The entry of the largest gradient moves by g_i / L, and no other, whichever tensor it is in."""
    made, w = Coupled(), torch.cat(Coupled().parts).detach()
    optimizer = GreedyBCD(rule="gs", lipschitz=8.0, tau=1).build(made.parts)
    for _ in range(20):
        for p, g in zip(made.parts, made.gradient(), strict=True):
            p.grad = g
        optimizer.step()
        g = made.a @ w - made.b
        w[g.abs().argmax()] -= g[g.abs().argmax()] / 8
        torch.testing.assert_close(torch.cat(made.parts).detach(), w)


@pytest.mark.exact
def test_backtracking_stops_within_twice_the_true_constant() -> None:
    """L_b is doubled only while the bound fails, and then kept: L_b < 2 λ_max, and no step raises the loss."""
    made = Coupled()
    optimizer: Any = GreedyBCD(rule="cyclic", start=1e-3).build(made.parts)
    losses = [optimizer.step(made).item() for _ in range(60)]
    assert all(b <= a for a, b in itertools.pairwise(losses))
    for p, a in zip(made.parts, made.inside, strict=True):
        assert 1e-3 < optimizer.state[p]["L"] < 2 * torch.linalg.eigvalsh(a)[-1]
    torch.testing.assert_close(torch.cat(made.parts).detach(), torch.linalg.solve(made.a, made.b), rtol=1e-3, atol=1e-3)


@pytest.mark.exact
@pytest.mark.parametrize("l1", [0.0, 0.7])
@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_a_promise_is_the_largest_fall_of_the_bound(l1: float, bound: float) -> None:
    """Section 5.1, GS-q: -min ⟨g, d⟩ + L d² / 2 + λ |w + d| - λ |w|, here over a fine grid of d."""
    w, g = noise(40), noise(40, seed=1)
    d = torch.cat([torch.linspace(-12, 12, 24001).double()[:, None].expand(-1, 40), -w[None]])  # the kink among them
    place: Any = SimpleNamespace(p=w, grad=g, at=SimpleNamespace(l1=l1), state={})
    falls = -(g * d + bound / 2 * d**2 + l1 * ((w + d).abs() - w.abs()))  # (24002, 40)
    torch.testing.assert_close(gain(place, bound), falls.amax(0), rtol=0, atol=1e-6)
    best = falls.argmax(0)
    torch.testing.assert_close(move(place, w, bound), d[best, torch.arange(40)], rtol=0, atol=2e-3)


@pytest.mark.exact
def test_of_l1_logistic_regression_sklearns_optimum_and_support_are_found() -> None:
    """Section 5, GS-q: soft thresholds; coordinates that are 0 at the optimum become 0 and stay it."""
    x, y = noise(80, 12), (noise(80, 12)[:, :3].sum(1) + 0.5 * noise(80, seed=5) > 0).double()
    w, l1 = nn.Parameter(torch.zeros(12).double()), 0.05
    optimizer: Any = GreedyBCD(tau=3, l1=l1, start=0.1).build([w])
    for _ in range(400):
        optimizer.step(lambda: F.binary_cross_entropy_with_logits(x @ w, y))
    theirs = LogisticRegression(
        l1_ratio=1, C=1 / (80 * l1), solver="saga", fit_intercept=False, tol=1e-9, max_iter=9999
    )
    theirs.fit(x.numpy(), y.numpy())
    torch.testing.assert_close(w.detach(), torch.from_numpy(theirs.coef_[0]), rtol=0, atol=1e-5)
    assert 0 < (w == 0).sum() < 12
    assert torch.equal(w == 0, torch.from_numpy(theirs.coef_[0]) == 0)


def test_trials_draw_the_same_masks_and_leave_statistics_and_generators_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1)).double()
    twin, x, seen = copy.deepcopy(net), noise(12, 4), list[Tensor]()
    net[2].register_forward_hook(lambda _, inputs, output: seen.append(output == 0))
    optimizer: Any = GreedyBCD(start=1e-3).build(net.parameters(), model=net)
    loss = optimizer.step(lambda: net(x).square().mean())
    after = torch.rand(3)
    torch.manual_seed(0)
    copy.deepcopy(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1)).double())
    torch.testing.assert_close(loss, twin(x).square().mean().detach())
    assert not loss.requires_grad
    assert torch.equal(after, torch.rand(3))
    assert len(seen) > 2
    assert all(torch.equal(mask, seen[0]) for mask in seen)
    assert all(map(torch.equal, net.buffers(), twin.buffers()))


def test_where_no_constant_helps_nothing_moves() -> None:
    w, turn = nn.Parameter(torch.zeros(2).double()), itertools.count()
    optimizer: Any = GreedyBCD(start=0.5).build([w])
    optimizer.step(lambda: w.sum() + 9 * next(turn))
    assert w.tolist() == [0.0, 0.0]
    assert optimizer.state[w]["L"] == 0.5
    assert next(turn) == 61


@pytest.mark.parametrize(("roundings", "runs"), [(20, 2), (22, 61)])
def test_ten_roundings_of_the_loss_are_forgiven(roundings: int, runs: int) -> None:
    """Of a loss of -2: ten are 20 times the distance of the numbers next to 1."""
    w, turn = nn.Parameter(torch.ones(2).double()), itertools.count()
    rise = torch.tensor(roundings * 2.0**-52).double()
    GreedyBCD().build([w]).step(lambda: 0 * w.sum() - 2 + (rise if next(turn) else 0))  # type: ignore[arg-type, return-value]  # torch's floats
    assert next(turn) == runs


def test_gauss_southwell_takes_every_constant_for_one_in_its_choice() -> None:
    """With λ = 2: promises of 0.45 and 0.375 for L = 1, but of 0.23 and 0.25 for L = 2."""
    one, two = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.full((1,), 0.5))
    one.grad, two.grad = torch.tensor([2.95]), torch.tensor([-1.0])
    GreedyBCD(rule="gs", lipschitz=2.0, l1=2.0).build([one, two]).step()
    assert one.item() == pytest.approx(-0.475)
    assert two.item() == 0.5


def test_gradients_far_below_the_weights_are_told_apart() -> None:
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    one.grad, two.grad = torch.tensor([1e-9]), torch.tensor([2e-9])
    GreedyBCD(rule="gs", lipschitz=1e-6).build([one, two]).step()
    assert one.item() == 1.0
    assert two.item() == pytest.approx(0.998)


def test_random_blocks_are_those_of_the_largest_draws() -> None:
    parts: list[Any] = [nn.Parameter(torch.zeros(())) for _ in range(4)]
    optimizer = GreedyBCD(rule="random", lipschitz=1.0).build(parts)
    torch.manual_seed(0)
    counts = torch.stack([torch.rand(4) for _ in range(12)]).argmax(1).bincount(minlength=4)
    torch.manual_seed(0)
    for _ in range(12):
        for p in parts:
            p.grad = torch.full((), -1.0)
        optimizer.step()
    assert [p.item() for p in parts] == counts.tolist()


def test_cyclic_blocks_come_in_turn() -> None:
    parts: list[Any] = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    for tau, wanted in ((None, [0, 0, 1, 1, 2, 2, 0, 0]), (4, [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])):
        optimizer, order = GreedyBCD(rule="cyclic", lipschitz=1.0, tau=tau).build(parts), list[int]()
        for _ in range(len(wanted) // (tau or 2)):
            before = torch.cat(parts).detach()
            for p in parts:
                p.grad = torch.ones_like(p)
            optimizer.step()
            moved = (torch.cat(parts) != before).nonzero().flatten().tolist()
            order += [i // 2 for i in moved] if tau is None else moved
        assert order == (wanted if tau is None else [0, 1, 2, 3, 0, 1, 4, 5, 2, 3, 4, 5])


def test_without_any_gradient_nothing_moves() -> None:
    w, other = nn.Parameter(torch.ones(2)), torch.ones((), requires_grad=True)
    GreedyBCD(lipschitz=1.0).build([w]).step()
    loss: Any = GreedyBCD().build([w]).step(lambda: 2 * other)  # type: ignore[arg-type, return-value]  # torch's floats
    assert (w.tolist(), loss.item()) == ([1.0, 1.0], 2.0)


def test_a_diagonal_that_is_missing_or_of_another_shape_is_named() -> None:
    w = nn.Parameter(torch.ones(2))
    for groups in ([w], [{"params": [w], "diagonal": [torch.ones(3)]}]):
        with pytest.raises(NeedError, match="gsd needs groups with a key 'diagonal'"):
            GreedyBCD(rule="gsd").build(groups)


def test_a_constant_of_half_precision_weights_is_not_doubled_by_rounding() -> None:
    w = nn.Parameter(torch.linspace(-1, 1, 9).half())
    optimizer: Any = GreedyBCD(start=1.0).build([w])
    for _ in range(20):
        optimizer.step(lambda: (w - 0.3).square().sum() / 2)
    assert optimizer.state[w]["L"] <= 2.0
