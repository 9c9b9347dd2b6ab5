from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import oracle_amp
import pytest
import torch
from hypothesis import strategies as st
from paper_toolbox.errors import ParamError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.optimizer_passes import gradient_used
from paper_toolbox.testing.oracle import Draw, fields
from paper_toolbox_amp import AMP
from torch import Tensor, nn

SCOPES: list[Any] = ["tensor", "global"]


class TestAMP(OptimizerSuite):
    method = AMP(lr=0.05, momentum=0.9)
    oracle = staticmethod(oracle_amp.amp)
    oracle_of = "model"
    still = ({"epsilon": 0.0, "inner_iter": 3}, {"inner_lr": 0.0})
    examples = 4
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 5, "fields": {"lr": 0.05, "epsilon": 0.1}}
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.5),
        "momentum": st.floats(0.0, 0.95),
        "weight_decay": st.floats(0.0, 0.3),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Either scope, one to four steps of the ascent, on problems whose gradient changes with the tensors."""
        for scope, inner_iter in itertools.product(SCOPES, range(1, 5)):
            drawn = fields(draw, self.method, self.ranges)
            method = dataclasses.replace(drawn, scope=scope, inner_iter=inner_iter)
            problem = dataclasses.replace(Problem.drawn(draw), pull=0.5)
            yield from zip(self.trajectory(problem, method, None), self.expected(problem, [method]), strict=True)


A = torch.diag(torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64))
POINT = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def quadratic(w: Tensor) -> Tensor:
    return w @ A @ w / 2


@pytest.mark.exact
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_within_the_ball_it_is_plain_ascent(steps: int, scope: Any) -> None:
    """Algorithm 1 on w·A w / 2: w + Δ = (I + ζ A)ᴺ w, and the gradient used is A times that."""
    found = gradient_used(AMP(epsilon=1e9, inner_lr=0.2, inner_iter=steps, scope=scope), POINT, quadratic)
    ascent = torch.linalg.matrix_power(torch.eye(3, dtype=torch.float64) + 0.2 * A, steps)
    torch.testing.assert_close(found, A @ ascent @ POINT, rtol=1e-13, atol=0)


@pytest.mark.exact
@pytest.mark.parametrize("scope", SCOPES)
def test_beyond_the_ball_it_is_on_the_surface(scope: Any) -> None:
    """As SAM with ρ = ε: A (w + ε A w / ‖A w‖)."""
    found = gradient_used(AMP(epsilon=0.5, inner_lr=10.0, scope=scope), POINT, quadratic)
    slope = A @ POINT
    torch.testing.assert_close(found, A @ (POINT + 0.5 * slope / slope.norm()), rtol=1e-11, atol=0)


@pytest.mark.exact
def test_each_tensor_has_its_ball_or_all_have_one() -> None:
    """Gradients of norms 5 and 0.1 and ε = 1: per tensor only the first is shortened, to 1; else both are, by 5.001."""
    away = [torch.tensor([3.0, 4.0]).double(), torch.tensor([0.1]).double()]
    each, both = ([x.clone() for x in away] for _ in range(2))
    AMP(epsilon=1.0).bound(each)
    torch.testing.assert_close(each, [away[0] / 5, away[1]], rtol=1e-11, atol=0)
    AMP(epsilon=1.0, scope="global").bound(both)
    torch.testing.assert_close(both, [x / 25.01**0.5 for x in away], rtol=1e-11, atol=0)


def test_the_norm_has_a_floor() -> None:
    """With ε = 1e-12 a perturbation of norm 1e-12, the floor itself, is halved."""
    away = torch.tensor([0.0, 1e-12], dtype=torch.float64)
    AMP(epsilon=1e-12).bound([away])
    torch.testing.assert_close(away, torch.tensor([0.0, 5e-13], dtype=torch.float64), rtol=1e-12, atol=0)


def test_bases_that_do_not_fit_are_named() -> None:
    with pytest.raises(ParamError, match="its step takes a closure"):
        AMP(base="amp").build([nn.Parameter(torch.ones(1))])
