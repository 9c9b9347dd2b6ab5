from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import oracle_fd_grad_reg
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import ParamError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.optimizer_passes import gradient_used
from paper_toolbox.testing.oracle import Draw, fields
from paper_toolbox_fd_grad_reg import FDGradReg
from torch import Tensor, nn

VARIANTS: list[Any] = ["forward", "backward", "centred"]


class TestFDGradReg(OptimizerSuite):
    method = FDGradReg(lr=0.05, momentum=0.9)
    oracle = staticmethod(oracle_fd_grad_reg.fd_grad_reg)
    examples = 12
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 5, "fields": {"lr": 0.05}}
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.5),
        "momentum": st.floats(0.0, 0.95),
        "weight_decay": st.floats(0.0, 0.3),
        "eps": st.floats(0.005, 2.0),
    }
    oracle_of = "model"
    still = tuple({"gamma": 0.0, "variant": variant} for variant in VARIANTS)

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Each variant, on problems whose gradient changes with the tensors."""
        for variant in VARIANTS:
            method = dataclasses.replace(fields(draw, self.method, self.ranges), variant=variant)
            problem = dataclasses.replace(Problem.drawn(draw), pull=0.5)
            yield from zip(self.trajectory(problem, method, None), self.expected(problem, [method]), strict=True)


POINT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@pytest.mark.exact
@pytest.mark.parametrize("variant", VARIANTS)
def test_on_a_quadratic_it_is_the_gradient_of_the_penalty(variant: Any) -> None:
    """Eq. 5: g + γ A g at w·A w / 2, whatever ε is: that is ∇(L + γ/2 ‖∇L‖²)."""
    a = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    slope = a @ POINT
    for eps in (0.01, 0.5, 3.0):
        found = gradient_used(FDGradReg(variant=variant, eps=eps, gamma=0.3), POINT, lambda w: w @ a @ w / 2)
        torch.testing.assert_close(found, slope + 0.3 * a @ slope, rtol=1e-11, atol=0)


@pytest.mark.exact
@pytest.mark.parametrize(("variant", "order"), [("forward", 1), ("backward", 1), ("centred", 2)])
def test_short_differences_tend_to_double_backpropagation(variant: Any, order: int) -> None:
    """Of Σ exp(w): g + γ H g = e^w + γ e^2w; the error falls as ε, and as ε² where the difference is centred."""
    exact = POINT.exp() + 0.4 * (2 * POINT).exp()
    errors = [
        gradient_used(FDGradReg(variant=variant, eps=e, gamma=0.4), POINT, lambda w: w.exp().sum()) - exact for e in EPS
    ]
    torch.testing.assert_close(errors[0] / errors[1], torch.full_like(POINT, 10.0**order), rtol=0.02, atol=0)


EPS = (1e-3, 1e-4)


@pytest.mark.exact
def test_equal_weights_are_descent_with_the_gradient_uphill() -> None:
    """Section 3: γ = ε is SAM without its normalization."""
    found = gradient_used(FDGradReg(eps=0.2, gamma=0.2), POINT, lambda w: w.exp().sum())
    torch.testing.assert_close(found, (POINT + 0.2 * POINT.exp()).exp(), rtol=1e-13, atol=0)


@pytest.mark.exact
def test_flooding_does_it_unknowingly() -> None:
    """Section 6: a step down and a step up of length η move by the backward penalty's part with ε = γ = η, times η."""
    eta = 0.1
    down = POINT - eta * POINT.exp()
    up = down + eta * down.exp()
    found = gradient_used(FDGradReg(variant="backward", eps=eta, gamma=eta), POINT, lambda w: w.exp().sum())
    torch.testing.assert_close(POINT - up, eta * (found - POINT.exp()), rtol=1e-10, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pass_drops_the_same_units(variant: Any) -> None:
    """Σ dropout(w)² / 2 with half of the units kept, twice as large: g = 4 w and γ H g = 16 γ w, or 0."""
    torch.manual_seed(0)
    w = torch.ones(400, dtype=torch.float64)
    found = gradient_used(FDGradReg(variant=variant, gamma=0.5), w, lambda x: F.dropout(x, 0.5).square().sum() / 2)
    kept = found > 0
    assert 100 < kept.sum() < 300
    torch.testing.assert_close(found, torch.where(kept, 12.0, 0.0).double(), rtol=1e-11, atol=0)


@pytest.mark.parametrize(("variant", "count"), [("forward", 2), ("backward", 2), ("centred", 3)])
def test_takes_as_many_passes_as_needed(variant: Any, count: int) -> None:
    passes: list[Tensor] = []
    gradient_used(FDGradReg(variant=variant), POINT, lambda w: w.exp().sum(), passes)
    assert len(passes) == count


def test_gradients_that_are_overwritten_in_place_are_kept() -> None:
    """Of e^w: the difference of the gradients on both sides, e^w sinh(ε e^w) / ε."""
    w = nn.Parameter(POINT.clone())
    optimizer: Any = FDGradReg(variant="centred", eps=0.2, gamma=0.3, lr=1.0, momentum=0.0).build([w])

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = w.exp().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        return loss

    optimizer.step(closure)
    g = POINT.exp()
    torch.testing.assert_close(POINT - w.detach(), g + 0.3 * g * (0.2 * g).sinh() / 0.2, rtol=1e-12, atol=0)


def test_bases_that_do_not_fit_are_named() -> None:
    with pytest.raises(ParamError, match="its step takes a closure"):
        FDGradReg(base="fd_grad_reg").build([nn.Parameter(torch.ones(1))])
