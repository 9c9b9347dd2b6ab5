from __future__ import annotations

from typing import ClassVar

import oracle_opt_amsgrad
import pytest
import torch
from hypothesis import strategies as st
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox_opt_amsgrad import OptAMSGrad, extrapolated
from torch import Tensor, nn


class TestOptAMSGrad(OptimizerSuite):
    method = OptAMSGrad(lr=0.02, span=2)
    oracle = staticmethod(oracle_opt_amsgrad.opt_amsgrad)
    lr_scales = False  # with lr = 0 the guessed step ahead is taken back
    ranges: ClassVar = {
        "predictor": st.sampled_from(["extrapolation", "extrapolation", "last"]),
        "span": st.sampled_from([2, 3, 1]),
        "lam": st.floats(1e-3, 1.0),
    }
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 8, "fields": {"lr": 0.01}}

    @pytest.mark.slow  # its two stages are compiled for each number of axes
    def test_engines_agree_and_share_checkpoints(self) -> None:
        super().test_engines_agree_and_share_checkpoints()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def led(past: Tensor, lam: float) -> Tensor:
    """Where a sequence leads, (N,); past (r + 1, N), the newest last."""
    return extrapolated([*past.diff(dim=0)], past[-1], lam)


def places(method: OptAMSGrad, gradients: list[Tensor]) -> list[Tensor]:
    """Where a weight is before the first and after each of the gradients."""
    p = nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer, found = method.build([p]), [p.detach().clone()]
    for p.grad in gradients:
        optimizer.step()
        found.append(p.detach().clone())
    return found


@pytest.mark.exact
@pytest.mark.parametrize("predictor", ["last", "extrapolation"])
def test_a_gradient_that_stays_is_guessed_and_puts_the_weight_one_step_ahead(predictor: str) -> None:
    """Algorithm 2 with β₁ = 0: v̂ = (1 - β₂) g² from the first step on, and w is t + 1 steps of g / √v̂ away."""
    g = noise(4, 3)
    found = places(OptAMSGrad(lr=0.1, betas=(0.0, 0.9), predictor=predictor, eps=1e-30, span=2), [g] * 6)  # type: ignore[arg-type]  # one of the two
    for t, p in enumerate(found[1:], 1):
        torch.testing.assert_close(p, -0.1 * (t + 1) * g.sign() / 0.1**0.5)


@pytest.mark.exact
def test_under_a_constant_root_it_is_optimistic_descent() -> None:
    """With β₁ = 0, m = g and √v̂ held by a large ε: wₜ₊₁ = wₜ - 2 a gₜ + a gₜ₋₁, a = η / √(2 ε)."""
    gradients = [noise(5, seed=i) for i in range(6)]
    method = OptAMSGrad(lr=1e6, betas=(0.0, 0.9), predictor="last", eps=1e14)
    found, a = places(method, gradients), 1e6 / (2e14) ** 0.5
    for t in range(1, 6):
        torch.testing.assert_close(found[t + 1] - found[t], -2 * a * gradients[t] + a * gradients[t - 1])


@pytest.mark.exact
def test_the_second_moment_is_that_of_the_surprise_and_never_falls() -> None:
    """v = β₂ v + (1 - β₂) (g - m)², m₁ = 0, and v̂ its maximum: AMSGrad's where nothing is guessed."""
    gradients = [noise(5, seed=i) for i in range(8)]
    p = nn.Parameter(torch.zeros(5).double())
    optimizer = OptAMSGrad(predictor="last", betas=(0.9, 0.5), eps=1e-30).build([p])
    v, top, before = torch.zeros(5).double(), torch.zeros(5).double(), torch.zeros(5).double()
    for p.grad in gradients:
        optimizer.step()
        v = 0.5 * v + 0.5 * (p.grad - before) ** 2
        top, before = torch.maximum(top, v), p.grad.clone()
        torch.testing.assert_close(optimizer.state[p]["top"], top)
    assert (top > v).any()


@pytest.mark.exact
def test_extrapolation_finds_the_limit_of_geometric_sequences() -> None:
    """Algorithm 3: r differences see through r - 1 geometric parts; c sums to 1, so shift and scale pass through."""
    limit, slow, turning = noise(3, 7)
    past = torch.stack([limit + slow * 0.9**t + turning * (-0.5) ** t for t in range(4)])
    found = led(past, 1e-13)
    torch.testing.assert_close(found, limit, rtol=1e-5, atol=1e-5)
    assert (past[-1] - limit).norm() > 1
    for lam in (1e-13, 1e-4, 1.0):
        torch.testing.assert_close(led(5 + 1e3 * past, lam), 5 + 1e3 * led(past, lam))
    torch.testing.assert_close(led(past, 1e13), past[1:].mean(0))


@pytest.mark.exact
def test_extrapolation_weighs_small_differences_most() -> None:
    """Algorithm 3 of differences at right angles: c ~ 1 / (|u|² / max |u|² + λ)."""
    first, u, v = torch.eye(3).double()
    past = torch.stack([first, first + 2 * u, first + 2 * u + v])
    c = torch.tensor([1 / (1 + 0.3), 1 / (0.25 + 0.3)]).double()
    c = c / c.sum()
    torch.testing.assert_close(led(past, 0.3), c[0] * past[1] + c[1] * past[2])


@pytest.mark.exact
def test_the_guess_is_made_of_the_latest_gradients_of_a_tensor() -> None:
    """The newest gradient until r + 1 are known, then the extrapolation of these, and of no other tensor's."""
    gradients = [noise(2, 4, seed=i) for i in range(6)]
    p, q = (nn.Parameter(torch.zeros(4).double()) for _ in range(2))
    optimizer = OptAMSGrad(span=2, lam=0.1).build([p, q])
    for t, (p.grad, q.grad) in enumerate(gradients):
        optimizer.step()
        for i, x in enumerate((p, q)):
            known = torch.stack([g[i] for g in gradients[t - 2 : t + 1]]) if t >= 2 else None
            guess = gradients[t][i] if known is None else led(known, 0.1)
            torch.testing.assert_close(optimizer.state[x]["m"], guess)


def test_a_gradient_that_cannot_be_extrapolated_is_repeated() -> None:
    g = [torch.full((3,), x) for x in (1e-30, 2e-30, 4e-30, 1.0)]  # their products vanish in float32
    p = nn.Parameter(torch.zeros(3))
    optimizer = OptAMSGrad(span=2).build([p])
    for p.grad in g[:3]:
        optimizer.step()
        assert torch.equal(optimizer.state[p]["m"], p.grad)
    p.grad = g[3]
    optimizer.step()
    assert optimizer.state[p]["m"].isfinite().all()
    assert optimizer.state[p].keys() == {"step", "aux", "theta", "m", "g", "u1", "v", "top"}
    assert OptAMSGrad(predictor="last").init(p).keys() == {"aux", "theta", "m", "v", "top"}


def test_each_group_has_its_own_step_size() -> None:
    moving, fixed = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    optimizer = OptAMSGrad().build([{"params": [moving]}, {"params": [fixed], "lr": 0.0}])
    for _ in range(8):
        moving.grad = fixed.grad = torch.ones(4)
        optimizer.step()
    assert torch.equal(fixed, torch.ones(4))
    assert (moving < 1).all()
