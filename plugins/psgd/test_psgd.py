from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import oracle_psgd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import ModelError, NeedError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.oracle import Array, Draw, array, fields
from paper_toolbox_psgd import PSGD
from paper_toolbox_psgd.groups import fit_lra, fit_xmat, precondition
from torch import Tensor, nn

GROUPS: Any = ["lra", "xmat"]


class Fitted(OptimizerSuite):
    """The oracle gets the numbers that the method draws, in their order."""

    method = PSGD()
    whole_way: ClassVar = False
    oracle = staticmethod(oracle_psgd.psgd)
    ranges: ClassVar = {
        "lr": st.floats(0.01, 0.3),
        "rank": st.integers(0, 3),
        "lr_preconditioner": st.floats(0.05, 1.0),
        "init_scale": st.none() | st.floats(0.1, 3.0),
        "update_probability": st.sampled_from([1.0, 0.6]),
        "max_norm": st.none() | st.floats(0.01, 10.0),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        ranges = {**self.ranges, "preconditioner": st.just(self.method.preconditioner)}
        problem, method, seed = Problem.drawn(draw), fields(draw, self.method, ranges), draw(st.integers(0, 2**31))
        torch.manual_seed(seed)
        ours = torch.cat([p.flatten() for p in self.trajectory(problem, method, None)])
        torch.manual_seed(seed)
        draws = [drawn(method, len(ours), first=t == 0) for t in range(problem.steps)]
        slopes = np.concatenate([array(s).reshape(problem.steps, -1) for s in problem.slopes], 1)

        def gradient(w: Array, t: int) -> Array:
            return np.asarray(slopes[t - 1] + problem.pull * w)

        start = np.concatenate([array(x).ravel() for x in problem.starts])
        yield ours, oracle_psgd.psgd(start, gradient, problem.pull, draws, **vars(method))


class TestLRA(Fitted):
    method = PSGD(lr=0.1, rank=2)
    steps = 100
    whole_way: ClassVar = True
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 3}


class TestXMat(Fitted):
    method = PSGD(preconditioner="xmat", fit="whitening", lr=0.05, momentum=0.5)
    steps = 200


def drawn(method: PSGD, n: int, first: bool) -> dict[str, Any]:
    """What a step draws: whether it fits Q, v, at first U and V, and which of the two it moves."""
    found: dict[str, Any] = {"coin": float(torch.rand(()))}
    if first or found["coin"] < method.update_probability:
        found["v"] = array(torch.randn(n, dtype=torch.float64))
        if method.preconditioner == "lra":
            if first:
                found |= {x: array(torch.randn(n, method.rank, dtype=torch.float64)) for x in "UV"}
            found["branch"] = float(torch.rand(()))
    return found


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def fitted(h: Tensor, rate: float = 0.5, **fields: Any) -> Tensor:
    """P in full after so many pairs (v, H v); h (n, n)."""
    torch.manual_seed(0)
    n, method = len(h), PSGD(**fields)
    q: dict[str, Any] = {}
    update = fit_lra if method.preconditioner == "lra" else fit_xmat
    for _ in range(300):
        v = torch.randn(n, dtype=torch.float64)
        q = q or method.begin(v, h @ v)
        update(q, v, h @ v, torch.tensor(rate).double())
    return torch.stack([precondition(q, x) for x in torch.eye(n, dtype=torch.float64)], 1)


@pytest.mark.exact
@pytest.mark.parametrize("options", [{"rank": 0}, {"preconditioner": "xmat"}])
def test_of_a_diagonal_hessian_the_inverse_of_its_size_is_found(options: Any) -> None:
    """P |H| = I, also where H is indefinite (of xmat: where the entries that it links have one sign)."""
    h = torch.diag(torch.tensor([0.1, -1.0, 3.0, -2.0, 5.0]).double())
    torch.testing.assert_close(fitted(h, **options) @ h.abs(), torch.eye(5).double(), atol=1e-3, rtol=0)


@pytest.mark.exact
def test_a_hessian_of_a_diagonal_and_rank_one_is_inverted_with_rank_one() -> None:
    u, i = noise(4), torch.eye(4).double()
    h = i + u.outer(u)
    assert torch.linalg.matrix_norm(fitted(h, 0.3, rank=1) @ h - i, 2) < 0.1
    assert torch.linalg.matrix_norm(fitted(h, 0.3, rank=0) @ h - i, 2) > 0.5


@pytest.mark.exact
def test_a_hessian_of_crossed_diagonals_is_inverted_by_xmat() -> None:
    """Its group holds a root of the inverse of any matrix that links entry i with entry n - 1 - i alone."""
    a, b = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0]).double(), torch.tensor([1.0, 0.5, 0.0, 0.5, 1.0]).double()
    h = torch.diag(a) + torch.diag(b).flip(1)
    torch.testing.assert_close(fitted(h, preconditioner="xmat") @ h, torch.eye(5).double(), atol=1e-8, rtol=0)


@pytest.mark.exact
@pytest.mark.parametrize("group", GROUPS)
def test_gradients_are_whitened(group: Any) -> None:
    """P E[g gᵀ] P = I: gradients of sizes from 0.3 to 3 come out near 1, all of them."""
    size = torch.logspace(-0.5, 0.5, 5).double()
    w = nn.Parameter(torch.zeros(5).double())
    torch.manual_seed(0)
    optimizer: Any = PSGD(preconditioner=group, rank=1, fit="whitening", lr=1.0).build([w])
    sizes = []
    for _ in range(300):
        before, g = w.detach().clone(), size * torch.randn(5, dtype=torch.float64)
        optimizer.step(lambda g=g: (w * g).sum())
        sizes.append((w.detach() - before).square())
    assert (torch.stack(sizes[150:]).mean(0).log().abs() < math.log(2)).all()


def valley(w: Tensor) -> Tensor:
    """Rosenbrock's, with its minimum at (1, 1)."""
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


@pytest.mark.parametrize("group", GROUPS)
def test_rosenbrocks_valley_is_followed(group: Any) -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.tensor([-1.0, 1.0]).double())
    optimizer: Any = PSGD(preconditioner=group, lr=0.5, rank=1).build([w])
    for _ in range(200):
        optimizer.step(lambda: valley(w))
    assert valley(w) < 0.05


@pytest.mark.parametrize("group", GROUPS)
def test_without_curvature_q_stays(group: Any) -> None:
    """A loss linear in the weights, or independent of them: H v = 0 teaches nothing, and P is I."""
    alone = nn.Parameter(torch.ones(2).double())
    straight: Any = PSGD(preconditioner=group, rank=0, lr=0.1).build([alone])
    straight.step(lambda: 3 * alone.sum())
    torch.testing.assert_close(alone.detach(), torch.full((2,), 0.7).double())
    one, two = nn.Parameter(torch.ones(2).double()), nn.Parameter(torch.ones(1).double())
    optimizer: Any = PSGD(preconditioner=group, rank=0, lr=0.1).build([one, two])
    for turn in range(1, 4):
        loss = optimizer.step(lambda: 3 * one.sum())
        torch.testing.assert_close(one.detach(), torch.full((2,), 1 - 0.3 * turn).double())
    assert two.item() == 1.0
    assert not loss.requires_grad
    optimizer.step(lambda: 3 * one.sum() + two.square().sum())
    assert optimizer.state[one]["d" if group == "lra" else "a"][2] != 1.0


def test_the_first_fit_is_scaled_so_that_p_h_is_as_long_as_v() -> None:
    for size in (1e-12, 1.0, 1e12):
        v, h = noise(50), size * noise(50).flip(0)
        q = PSGD(preconditioner="xmat").begin(2 * v.float(), 2 * h.float())
        assert precondition(q, h.float()).norm() == pytest.approx(v.norm().item(), rel=0.5)
    wide = torch.tensor([-1e-30, -1e12])  # its fourth powers are beyond float32
    assert (PSGD(rank=0).begin(v[:2].float(), wide)["d"] > 0).all()
    q = PSGD(rank=3).begin(v, h)
    assert (q["U"] @ q["V"].T).norm() < 0.3
    assert not torch.equal(q["U"], q["V"])


def test_u_and_v_are_balanced_before_a_fit() -> None:
    torch.manual_seed(0)
    one = PSGD(rank=3).begin(noise(8), noise(8))
    one["V"] *= one["U"].norm() / one["V"].norm()
    two = {**one, "d": one["d"].clone(), "U": 100 * one["U"], "V": one["V"] / 100}
    for q in (one, two):
        torch.manual_seed(1)
        fit_lra(q, noise(8), noise(8).flip(0), torch.tensor(0.3).double())
    torch.testing.assert_close(one, two)


def test_only_newtons_fit_does_without_fused_attention() -> None:
    cases: Any = (({}, [False] * 2), ({"fit": "whitening"}, [True] * 2), ({"update_probability": 0.0}, [False, True]))
    for options, wanted in cases:
        x, fused = nn.Parameter(torch.randn(1, 1, 4, 8)), list[bool]()
        optimizer: Any = PSGD(rank=1, **options).build([x])

        def loss(x: Tensor = x, fused: list[bool] = fused) -> Tensor:
            fused.append(torch.backends.cuda.flash_sdp_enabled())
            return F.scaled_dot_product_attention(x, x, x).square().sum()

        optimizer.step(loss)
        optimizer.step(loss)
        assert fused == wanted


def test_step_sizes_are_the_groups_and_q_is_the_runs() -> None:
    one, two = nn.Parameter(torch.ones(3).double()), nn.Parameter(torch.ones(2, 2).double())
    optimizer: Any = PSGD(lr=0.0, rank=1).build([{"params": [one]}, {"params": [two], "lr": 0.5, "momentum": 0.9}])
    optimizer.step(lambda: one.square().sum() + two.square().sum())
    assert torch.equal(one, torch.ones(3).double())
    assert not torch.equal(two, torch.ones(2, 2).double())
    assert optimizer.state[one]["U"].shape == (7, 1)
    assert optimizer.state[one]["m"].tolist() == [2.0] * 7, "the second group's momentum counts"
    two.requires_grad_(False)
    with pytest.raises(ModelError, match="for 7 numbers, and 3 are trained"):
        optimizer.step(lambda: one.square().sum())


def test_half_precision_is_fitted_in_float32() -> None:
    one, two = nn.Parameter(torch.ones(3, dtype=torch.float16)), nn.Parameter(torch.ones(2))
    optimizer: Any = PSGD(lr=0.5, rank=1).build([one, two])
    optimizer.step(lambda: (one.square().sum() + two.square().sum()) * 8)
    assert optimizer.state[one]["U"].dtype == torch.float32
    assert one.dtype == torch.float16
    assert not torch.equal(one, torch.ones(3, dtype=torch.float16))


def test_a_rank_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(9, 10)  # 100 numbers, 400 bytes
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8_800))
    PSGD(rank=10).build(model.parameters())
    PSGD(rank=99, preconditioner="xmat").build(model.parameters())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8_799))
    with pytest.raises(NeedError, match=r"psgd.rank = 10: needs 8800 bytes on cpu.* at most 9 fit"):
        PSGD(rank=10).build(model.parameters())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8_000))
    PSGD(rank=9).build(model.half().parameters())
    frozen = nn.Linear(2, 2).requires_grad_(False)
    PSGD(rank=10).build(frozen.parameters())
