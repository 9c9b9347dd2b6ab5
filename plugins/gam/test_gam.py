from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import oracle_gam
import pytest
import torch
from hypothesis import strategies as st
from paper_toolbox.errors import ParamError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.optimizer_passes import gradient_used
from paper_toolbox.testing.oracle import Draw, fields
from paper_toolbox_gam import GAM
from torch import Tensor, nn


class TestGAM(OptimizerSuite):
    method = GAM(lr=0.05, momentum=0.9)
    oracle = staticmethod(oracle_gam.gam)
    oracle_of = "model"
    still = ({"rho": 0.0, "rho_prime": 0.0, "beta1": 1.0, "gamma": 0.0},)
    examples = 12
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 5, "fields": {"lr": 0.05}}
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.3),
        "momentum": st.floats(0.0, 0.95),
        "weight_decay": st.floats(0.0, 0.3),
        "rho": st.floats(0.05, 1.0),
        "rho_prime": st.floats(0.05, 1.0),
        "gamma": st.floats(0.01, 1.0),
        "eps": st.floats(1e-12, 0.1),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Plain and adaptive, on problems whose gradient changes with the tensors."""
        for adaptive in (False, True):
            method = dataclasses.replace(fields(draw, self.method, self.ranges), adaptive=adaptive)
            problem = dataclasses.replace(Problem.drawn(draw), pull=0.5)
            yield from zip(self.trajectory(problem, method, None), self.expected(problem, [method]), strict=True)


A = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
POINT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def quadratic(w: Tensor) -> Tensor:
    return w @ A @ w / 2


@pytest.mark.exact
def test_goes_where_the_gradient_grows_fastest() -> None:
    """Eq. 9, on w·A w / 2: the third gradient is taken ρ along H g/‖g‖, which is the gradient of ‖∇L‖."""
    seen: list[Tensor] = []
    gradient_used(GAM(rho=0.3, rho_prime=0.1), POINT, quadratic, seen)
    steepest = A @ A @ POINT
    torch.testing.assert_close(seen[2], POINT + 0.3 * steepest / steepest.norm(), rtol=1e-11, atol=0)


@pytest.mark.exact
def test_differences_of_gradients_are_the_curvature() -> None:
    """On a quadratic with β₁ = 1: main = g + ρ' A g/‖g‖ = g + ρ' ∇‖∇L‖, the gradient plus the first-order flatness'."""
    found = gradient_used(GAM(rho_prime=0.1, beta1=1.0, gamma=0.0), POINT, quadratic)
    slope = A @ POINT
    torch.testing.assert_close(found, slope + 0.1 * A @ slope / slope.norm(), rtol=1e-13, atol=0)


@pytest.mark.exact
def test_without_the_later_gradients_it_is_sam() -> None:
    """β₁ = 1 and γ = 0: the gradient at w + ρ' g/‖g‖ (SAM, eq. 2), of a loss that is no quadratic."""
    found = gradient_used(GAM(rho_prime=0.2, beta1=1.0, gamma=0.0), POINT, lambda w: w.exp().sum())
    slope = POINT.exp()
    torch.testing.assert_close(found, (POINT + 0.2 * slope / slope.norm()).exp(), rtol=1e-11, atol=0)


@pytest.mark.exact
def test_only_the_perpendicular_part_is_taken_away() -> None:
    """Along the main part γ changes nothing; across it the step is -γ times what is projected."""
    plain, less = (gradient_used(GAM(gamma=gamma), POINT, lambda w: w.exp().sum()) for gamma in (0.0, 0.7))
    torch.testing.assert_close((plain - less) @ plain, torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-10)
    twice = gradient_used(GAM(gamma=1.4), POINT, lambda w: w.exp().sum())
    torch.testing.assert_close(plain - twice, 2 * (plain - less), rtol=1e-10, atol=0)
    assert (plain - less).norm() > 1e-3


def test_bases_that_do_not_fit_are_named() -> None:
    with pytest.raises(ParamError, match="its step takes a closure"):
        GAM(base="gam").build([nn.Parameter(torch.ones(1))])
