from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import oracle_zoodip
import paper_toolbox_zoodip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import NeedError
from paper_toolbox.testing.optimizer import OptimizerSuite, Quadratic
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.oracle import Array, Draw, array, fields
from paper_toolbox_zoodip import ZOODiP, rare_directions
from torch import Tensor, nn


class TestZOODiP(OptimizerSuite):
    method = ZOODiP(lr=0.05, n=4, mu=0.1, tau=2, nu=0.3)
    steps = 150
    recipe: ClassVar = {
        "data": "wine",
        "model": "mlp?hidden=8&depth=1",
        "epochs": 12,
        "fields": {"lr": 0.03, "tau": 16},
    }
    oracle = staticmethod(oracle_zoodip.zoodip)
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.5),
        "mu": st.floats(1e-3, 0.5),
        "tau": st.integers(2, 5),
        "nu": st.floats(0.01, 0.95),
        "eps": st.floats(1e-4, 0.1),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """The oracle gets the directions that the method draws, and all tensors as one vector."""
        drawn, method = Problem.drawn(draw), fields(draw, self.method, self.ranges)
        seed, steps = draw(st.integers(0, 2**31)), draw(st.integers(1, 8))
        random = torch.Generator().manual_seed(seed)
        starts = drawn.starts
        slopes = [torch.randn(steps, *x.shape, generator=random, dtype=torch.float64) for x in starts]
        problem = Problem(starts, slopes, drawn.pull)
        torch.manual_seed(seed)
        ours = self.trajectory(problem, method, None)
        torch.manual_seed(seed)
        noise = [[joined(list(map(torch.randn_like, starts))) for _ in range(method.n)] for _ in range(steps)]

        def loss(w: Array, t: int) -> float:
            return float(joined([s[t - 1] for s in slopes]) @ w + problem.pull / 2 * (w @ w))

        yield joined_tensors(ours), oracle_zoodip.zoodip(joined(starts), loss, noise, **vars(method))


def joined_tensors(tensors: list[Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in tensors])


def joined(tensors: list[Tensor]) -> Array:
    return array(joined_tensors(tensors))


def raw(method: ZOODiP, w: Tensor, loss: Callable[[Tensor], Tensor], removed: Tensor | None = None) -> Tensor:
    """The gradient that Adam is handed at ``w``: its first moment after one step, over 1 - β₁."""
    p = nn.Parameter(w.clone())
    optimizer: Any = method.build([p])
    if removed is not None:
        optimizer.state[p] |= {"step": 0, **method.init(p), "V": removed}
    optimizer.step(lambda: loss(p))
    found: Tensor = optimizer.state[p]["m"] / (1 - method.betas[0])
    return found


def bowl(w: Tensor) -> Tensor:
    return (w * w * torch.arange(1, len(w) + 1)).sum() / 2


W = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)


@pytest.mark.exact
def test_estimate_points_along_the_gradient() -> None:
    """Of many directions the mean is the gradient's, shortened by √((D + n - 1) / n) as the paper's scale says."""
    torch.manual_seed(0)
    n = 4000
    g = raw(ZOODiP(n=n, mu=1e-5), W, bowl)
    gradient = W * torch.arange(1, 6)
    assert F.cosine_similarity(g, gradient, dim=0) > 0.995
    torch.testing.assert_close(g.norm(), gradient.norm() / ((5 + n - 1) / n) ** 0.5, rtol=0.05, atol=0)


@pytest.mark.exact
@pytest.mark.parametrize("n", [1, 8])
def test_estimate_has_the_length_of_the_gradient(n: int) -> None:
    """E‖g‖² = ‖∇l‖² (norm-correcting scale): in D dimensions n directions alone give (D + n + 1)/n of it."""
    torch.manual_seed(0)
    slope = torch.randn(200, dtype=torch.float64)
    method = ZOODiP(n=n)
    squares = torch.stack(
        [raw(method, torch.zeros_like(slope), lambda w: w @ slope).square().sum() for _ in range(200)]
    )
    expected = slope.square().sum() * (200 + n + 1) / (200 + n - 1)
    torch.testing.assert_close(squares.mean(), expected, rtol=0.2, atol=0)


@pytest.mark.exact
def test_removed_directions_are_gone_and_the_others_stay() -> None:
    """g ← g - (g Vᵀ) V: orthogonal to V; the rest grows by what D_eff has become less."""
    torch.manual_seed(1)
    rows = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0].T
    torch.manual_seed(0)
    plain = raw(ZOODiP(n=3), W, bowl)
    torch.manual_seed(0)
    projected = raw(ZOODiP(n=3), W, bowl, rows)
    torch.testing.assert_close(rows @ projected, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    larger = ((5 + 3 - 1) / (3 + 3 - 1)) ** 0.5
    torch.testing.assert_close(projected, larger * (plain - (plain @ rows.T) @ rows), rtol=1e-12, atol=0)


@pytest.mark.exact
def test_history_tells_the_directions_apart() -> None:
    """Points slightly off a plane: the plane stays, what is off it is removed, what never moved is not looked at."""
    torch.manual_seed(0)
    plane, off = torch.randn(2, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    along, aside = torch.randn(32, 2, dtype=torch.float64), torch.randn(32, 1, dtype=torch.float64)
    history = torch.cat([3.0 + along @ plane + 1e-3 * aside @ off, torch.full((32, 2), 0.1, dtype=torch.float64)], 1)
    rows = torch.cat(rare_directions([history[:, :3], history[:, 3:]], nu=1e-3), 1)
    assert rows.shape == (1, 8)
    torch.testing.assert_close(rows @ rows.T, torch.eye(1, dtype=torch.float64))
    scaled = history[:, :6] / history[:, :6].std(0, correction=0)
    moves = scaled - scaled.mean(0)
    assert (moves @ rows[:, :6].T).norm() < 2e-3 * moves.norm()
    assert rows[:, 6:].abs().max() < 1e-12
    assert rare_directions([torch.ones(4, 3)], nu=0.5)[0].shape == (0, 3), "nothing moved, nothing is removed"


@pytest.mark.exact
def test_projection_keeps_noise_out_of_what_lies_still() -> None:
    """Where the gradient, like the path, lives in 4 of 60 dimensions, the estimate comes nearer to its direction."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64))[0]
    path = torch.randn(64, 4, dtype=torch.float64) @ basis[:4] + 1e-3 * torch.randn(64, 60, dtype=torch.float64)
    (rows,) = rare_directions([path], nu=1e-3)
    slope = basis[:4].sum(0)

    def error(removed: Tensor | None) -> float:
        found = [raw(ZOODiP(), torch.zeros(60, dtype=torch.float64), lambda w: w @ slope, removed) for _ in range(50)]
        return sum(1 - float(F.cosine_similarity(g, slope, dim=0)) for g in found) / 50

    assert len(rows) >= 50
    assert error(rows) < 0.7 * error(None)


def test_analyses_every_tau_steps() -> None:
    model = Quadratic({"w": torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))})
    (p,) = model.parameters()
    optimizer: Any = ZOODiP(tau=5, nu=0.9).build([p], model=model)
    seen, points = [], []
    torch.manual_seed(0)
    for _ in range(11):
        optimizer.step(model)
        seen.append(optimizer.state[p]["V"].clone())
        points.append(p.detach().clone())
    assert [len(rows) > 0 for rows in seen] == [False] * 4 + [True] * 7
    assert [i for i in range(5, 11) if not torch.equal(seen[i], seen[i - 1])] == [9]
    torch.testing.assert_close(seen[9].abs(), rare_directions([torch.stack(points[5:10])], 0.9)[0].abs())


def test_a_history_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    p = nn.Parameter(torch.zeros(10, 10, dtype=torch.bfloat16))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=39_999))
    with pytest.raises(NeedError, match=r"zoodip.tau = 10: needs 40000 bytes"):
        ZOODiP(tau=10).build([p])
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=40_000))
    ZOODiP(tau=10).build([p])
    asked: list[Any] = []
    monkeypatch.setattr(paper_toolbox_zoodip, "afford", lambda *given: asked.append(given))
    ZOODiP(tau=10).build([p, nn.Parameter(torch.zeros(3, dtype=torch.float64))])
    assert asked == [("zoodip.tau", 10, each, torch.device("cpu")) for each in (4120, 848)]
