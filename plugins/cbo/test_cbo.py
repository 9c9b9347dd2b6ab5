from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import oracle_cbo
import paper_toolbox_cbo
import pytest
import torch
from hypothesis import strategies as st
from paper_toolbox.errors import NeedError
from paper_toolbox.testing.optimizer import OptimizerSuite, Quadratic
from paper_toolbox.testing.optimizer_oracle import Problem, Slopes
from paper_toolbox.testing.oracle import Array, Draw, array, fields
from paper_toolbox_cbo import CBO
from torch import Tensor, nn


class TestCBO(OptimizerSuite):
    method = CBO(particles=32, s0=1.0, sigma=1.5, dt=0.3)
    steps, drop = 20, 0.3  #: of ten epochs
    recipe: ClassVar = {"data": "wine", "model": "mlp?hidden=4&depth=1"}
    oracle = staticmethod(oracle_cbo.cbo)
    ranges: ClassVar = {
        "particles": st.integers(2, 6),
        "alpha": st.floats(0.01, 10.0),
        "sigma": st.floats(0.0, 3.0),
        "dt": st.floats(0.01, 0.9),
        "s0": st.floats(0.05, 1.0),
        "s": st.floats(0.05, 1.0),
        "alpha_max": st.floats(0.1, 50.0),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """The oracle gets the normal numbers that the method draws. An epoch has two steps."""
        made, method = Problem.drawn(draw), fields(draw, self.method, self.ranges)
        seed, steps = draw(st.integers(0, 2**31)), draw(st.integers(1, 6))
        random, starts = torch.Generator().manual_seed(seed), made.starts
        slopes = [torch.randn(steps, *x.shape, generator=random, dtype=torch.float64) for x in starts]
        model = Slopes(Problem(starts, slopes, made.pull))
        optimizer: Any = method.build(list(model.points), model=model, steps_per_epoch=2)
        torch.manual_seed(seed)
        for model.t in range(1, steps + 1):
            optimizer.step(model)
        torch.manual_seed(seed)
        first = None if method.mode == "hopping" else normals(method, starts)
        noise = [normals(method, starts) for _ in range(steps)]

        def loss(w: Array, t: int) -> float:
            return float(joined([s[t - 1] for s in slopes]) @ w + made.pull / 2 * (w @ w))

        w, x = oracle_cbo.cbo(joined(starts), loss, first, noise, 2, **vars(method))
        yield torch.cat([p.detach().flatten() for p in model.points]), w
        if method.mode != "hopping":
            yield torch.cat([optimizer.state[p]["x"].reshape(method.particles, -1) for p in model.points], 1), x


def normals(method: CBO, tensors: list[Tensor]) -> Array:
    return array(
        torch.cat(
            [torch.randn(method.particles, *x.shape, dtype=x.dtype).reshape(method.particles, -1) for x in tensors], 1
        )
    )


def joined(tensors: list[Tensor]) -> Array:
    return array(torch.cat([x.flatten() for x in tensors]))


def stepped(method: CBO, w: Tensor, loss: Callable[[Tensor], Tensor], steps: int = 1) -> tuple[Tensor, Tensor]:
    """The weights and, where there are any, the particles after some steps from seed 0."""
    torch.manual_seed(0)
    p = nn.Parameter(w.clone())
    optimizer: Any = method.build([p])
    for _ in range(steps):
        optimizer.step(lambda: loss(p))
    return p.detach(), optimizer.state[p].get("x")


W = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@pytest.mark.exact
def test_hopping_is_a_gradient_step_of_size_alpha_s_squared() -> None:
    """Hopping: of a linear loss the expected step is -α s² ∇; of H x²/2 it is -(I + α s² H)⁻¹ α s² ∇."""
    method = CBO(mode="hopping", particles=8000, alpha=1.0, s=1.0)
    slope, curved = torch.tensor([3.0, -1.0, 2.0]).double() / 5, torch.tensor([0.5, 1.0, 2.0]).double()
    after, _ = stepped(method, W, lambda w: w @ slope)
    torch.testing.assert_close(after - W, -slope, rtol=0.08, atol=0.04)
    after, _ = stepped(method, W / 2, lambda w: (curved * w) @ w / 2)
    torch.testing.assert_close(after - W / 2, -curved * W / 2 / (1 + curved), rtol=0.08, atol=0.04)


@pytest.mark.exact
def test_without_noise_particles_fall_onto_their_consensus() -> None:
    """CBO with σ = 0 and λ Δt = 1: after a step all of them are where the model is, and nothing moves any more."""
    method = CBO(sigma=0.0, drift=4.0, dt=0.25, s0=1.0, alpha=0.5)
    w, x = stepped(method, W, lambda w: w.square().sum())
    torch.testing.assert_close(x, w.expand_as(x), rtol=0, atol=1e-14)
    again, _ = stepped(method, W, lambda w: w.square().sum(), steps=3)
    torch.testing.assert_close(again, w, rtol=0, atol=1e-13)


@pytest.mark.exact
def test_consensus_lies_between_the_mean_and_the_best_particle() -> None:
    """Laplace: with α → ∞ the consensus is the particle of the lowest loss, with α → 0 their mean."""
    torch.manual_seed(0)
    x = W + torch.randn(64, 3, dtype=torch.float64)
    best, _ = stepped(CBO(alpha=1e9, s0=1.0), W, lambda w: w.square().sum())
    torch.testing.assert_close(best, x[x.square().sum(1).argmin()])
    mean, _ = stepped(CBO(alpha=1e-9, s0=1.0), W, lambda w: w.square().sum())
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-6, atol=1e-6)


@pytest.mark.exact
def test_a_constant_added_to_the_loss_changes_nothing() -> None:
    """The weights exp(-α l) are only used relative to each other, also where each of them is 0 or infinite."""
    plain = stepped(CBO(s0=1.0), W, lambda w: w.square().sum(), steps=5)
    for constant in (1e4, -1e4):
        moved = stepped(CBO(s0=1.0), W, lambda w, c=constant: w.square().sum() + c, steps=5)
        torch.testing.assert_close(moved, plain, rtol=1e-6, atol=1e-6)


def test_small_differences_count_in_float32() -> None:
    """α l itself would be rounded to whole numbers here; α (l - min l) is not."""
    torch.manual_seed(0)
    x, gap = W.float() + torch.randn(64, 3), 2.0**-17
    w, _ = stepped(CBO(alpha=2e5, s0=1.0), W.float(), lambda w: 64 + gap * (w[0] > 1))
    weights = torch.where(x[:, 0] > 1, math.exp(-2e5 * gap), 1.0)
    torch.testing.assert_close(w, weights @ x / weights.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.exact
def test_noise_stops_where_particles_agree() -> None:
    """Anisotropic noise is diag(xᵢ - x̄) ξ: none in a coordinate in which all agree; isotropic noise moves that too."""
    for mode, still in (("anisotropic", True), ("isotropic", False)):
        p = nn.Parameter(W.clone())
        optimizer: Any = CBO(mode=mode, s0=1.0, sigma=1.0).build([p])
        optimizer.step(lambda p=p: p.square().sum())
        x = optimizer.state[p]["x"]
        x[:, 1] = 0.25
        optimizer.step(lambda p=p: p.square().sum())
        assert torch.allclose(x[:, 1], torch.tensor(0.25).double()) is still
        assert not torch.allclose(x[:, 0], x[0, 0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_particle_whose_loss_is_no_number_has_no_say(bad: float) -> None:
    torch.manual_seed(0)
    x = W + torch.randn(64, 3, dtype=torch.float64)
    w, _ = stepped(CBO(alpha=1e-9, s0=1.0), W, lambda w: torch.where(w[0] > 1, bad, w.sum()))
    torch.testing.assert_close(w, x[x[:, 0] <= 1].mean(0), rtol=1e-6, atol=1e-6)


def test_cooling_waits_for_epochs() -> None:
    """Without ``steps_per_epoch`` there is none; after thousands of epochs α is alpha_max, and nothing overflows."""

    def run(method: CBO, steps_per_epoch: int | None, begun: int = 0) -> Tensor:
        torch.manual_seed(0)
        model = Quadratic({"w": W})
        (p,) = model.parameters()
        optimizer: Any = method.build([p], model=model, steps_per_epoch=steps_per_epoch)
        for _ in range(4):
            optimizer.step(model)
            optimizer.state[p]["step"] += begun
        return p.detach()

    plain, cooled = CBO(alpha=1.0), CBO(alpha=1.0, cooling=True)
    assert torch.equal(run(plain, None), run(cooled, None))
    assert torch.equal(run(plain, 1), run(plain, None))
    assert not torch.equal(run(cooled, 1), run(cooled, None))
    assert run(cooled, 1, begun=5000).isfinite().all()


def test_particles_without_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [nn.Parameter(torch.zeros(10, 10, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(20))]
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=16_799))
    with pytest.raises(NeedError, match=r"cbo.particles = 10: needs 16800 bytes"):
        CBO(particles=10).build(points)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=16_800))
    CBO(particles=10).build(points)
    asked: list[Any] = []
    monkeypatch.setattr(paper_toolbox_cbo, "afford", lambda *given: asked.append(given))
    CBO(particles=10).build(points)
    assert asked == [("cbo.particles", 10, 1680, torch.device("cpu"))]
