from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.errors import ModelError
from paper_toolbox.kit.forward import derivative
from paper_toolbox.testing.optimizer import OptimizerSuite, Quadratic
from paper_toolbox_forward_gradient import ForwardGradient
from torch import Tensor, nn


class TestForwardGradient(OptimizerSuite):
    method = ForwardGradient(lr=0.02)


def test_derivative_is_the_gradient_times_the_tangent() -> None:
    """d = ∇f·v for a net with BatchNorm and attention, with gradients switched off."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6)).double()
    x = torch.randn(9, 5, dtype=torch.float64)

    def loss() -> Tensor:
        y = net(x)[None]
        return F.scaled_dot_product_attention(y, y, y).square().sum()

    params = list(net.parameters())
    tangents = [torch.randn_like(p) for p in params]
    expected = sum((g * v).sum() for g, v in zip(torch.autograd.grad(loss(), params), tangents, strict=True))
    ForwardGradient().build(params, model=net)
    with torch.no_grad():
        _, slope = derivative(net, params, tangents, loss)
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=0)
    assert all(a is b for a, b in zip(net.parameters(), params, strict=True)), "the parameters are back in their places"


@pytest.mark.parametrize("tangent", ["gaussian", "rademacher"])
def test_estimate_is_unbiased(tangent: str) -> None:
    """Theorem 1: the mean of (∇f·v) v over many v is ∇f; a single v would only point the same way by half."""
    model = Quadratic({"w": torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))})
    (w,) = model.parameters()
    (gradient,) = torch.autograd.grad(model(), [w])
    before = w.detach().clone()
    torch.manual_seed(0)
    ForwardGradient(lr=1.0, decay=0.0, k=2000, tangent=tangent).build([w], model=model).step(model)
    estimate = before - w.detach()
    assert F.cosine_similarity(estimate, gradient, dim=0) > 0.98
    assert (estimate - gradient).norm() < 0.25 * gradient.norm()


def test_step_size_falls_and_buffers_move_once() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(6, 3)
    twin = copy.deepcopy(net)
    optimizer = ForwardGradient(lr=0.0, k=3).build(net.parameters(), model=net)
    optimizer.step(lambda: net(x).square().sum())
    twin(x)
    assert all(map(torch.equal, net.buffers(), twin.buffers()))
    assert optimizer.param_groups[0]["step"] == 1


def test_an_operation_without_forward_derivative_is_named() -> None:
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def setup_context(ctx: object, inputs: object, output: object) -> None: ...

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad

    layer = nn.Linear(2, 2)
    optimizer = ForwardGradient().build(layer.parameters(), model=layer)
    with pytest.raises(ModelError, match="no forward derivative"):
        optimizer.step(lambda: Rounded.apply(layer(torch.ones(1, 2))).sum())  # type: ignore[no-untyped-call]  # torch's own signature


def test_parameters_that_are_not_the_models_are_refused() -> None:
    with pytest.raises(ModelError, match=r"shape \(3,\)"):
        ForwardGradient().build([nn.Parameter(torch.ones(3))], model=nn.Linear(2, 2))
    stranger = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="does not depend"):
        ForwardGradient().build(stranger.parameters(), model=stranger).step(lambda: torch.ones(()))
