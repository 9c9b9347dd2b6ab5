from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import oracle_proxyprox
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.kit.samples import Samples
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.oracle import Draw, array, fields
from paper_toolbox.testing.sample_problem import SampleProblem, data, flat, net, outputs, slopes
from paper_toolbox_proxyprox import ProxyProx
from torch import Tensor, nn


class TestProxyProx(OptimizerSuite):
    method = ProxyProx()
    steps = 20
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 2, "fields": {"lr": 0.2, "inner_steps": 5}}
    oracle = staticmethod(oracle_proxyprox.proxyprox)
    ranges: ClassVar = {
        "lr": st.floats(0.01, 0.3),
        "eta": st.floats(0.1, 5.0),
        "inner_steps": st.integers(1, 5),
        "inner_tol": st.sampled_from([0.0, 0.3, 0.8]),
        "proxy_share": st.sampled_from([0.1, 0.5, 0.7, 1.0]),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Batches of several sizes, one or two a step; the oracle gets the samples that the method draws."""
        problem, method = SampleProblem.drawn(draw), fields(draw, self.method, self.ranges)
        torch.manual_seed(0)
        found = problem.end(method)
        torch.manual_seed(0)
        drawn = [[torch.randperm(len(targets)).numpy() for _, targets in batches] for batches in problem.steps]
        given, kind = problem.given
        start = array(problem.start)
        yield found, oracle_proxyprox.proxyprox(start, outputs, slopes, given, drawn, kind, **vars(method))


class Point(nn.Module):
    """A vector, whatever the input."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), -1)


def quadratic(a: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, _: z[0] @ a @ z[0] / 2


def samples_of(point: Point, a: Tensor) -> Any:
    return Samples(point, [(torch.ones(1, 1).double(), torch.zeros(1))], quadratic(a))


class Given(ProxyProx):
    """The proxy is a quadratic, ``Given.a``."""

    a: ClassVar[Tensor]

    def proxy(self, samples: Samples) -> Callable[[], Tensor]:
        return samples_of(samples.model, self.a)  # type: ignore[arg-type,no-any-return]  # a Point


def definite(size: int, seed: int) -> Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size


@pytest.mark.exact
def test_without_a_proxy_it_is_gradient_descent() -> None:
    """ĥ = 0: the minimum of ⟨g, y⟩ + |y - x|² / 2η is x - η g, after one inner step of size η; η and γ by group."""

    class Nothing(ProxyProx):
        def proxy(self, samples: Samples) -> Callable[[], Tensor]:
            return lambda: 0 * sum((p.sum() for p in samples.model.parameters()), torch.zeros(()))

    model, (x, y) = net(), data()
    twin = copy.deepcopy(model)
    groups = [{"params": [*model[0].parameters()], "lr": 0.2, "eta": 0.2}, {"params": [*model[2].parameters()]}]
    others: Any = [{"params": [*twin[0].parameters()], "lr": 0.2}, {"params": [*twin[2].parameters()]}]
    ours: Any = Nothing(lr=0.5, eta=0.5).build(groups)
    theirs = torch.optim.SGD(others, 0.5)
    for _ in range(5):
        found = ours.step(Samples(model, [(x, y)], F.cross_entropy))
        theirs.zero_grad()
        loss = F.cross_entropy(twin(x), y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        theirs.step()
        torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(flat(model), flat(twin), rtol=1e-9, atol=1e-11)


@pytest.mark.exact
def test_with_the_loss_for_a_proxy_it_is_a_proximal_point_step() -> None:
    """ĥ = h: x⁺ = x - η ∇h(x⁺)."""
    model, (x, y) = net(), data()
    before = flat(model)
    samples: Any = Samples(model, [(x, y)], F.cross_entropy)
    method = ProxyProx(lr=0.4, eta=0.8, inner_steps=300, inner_tol=1e-12, proxy_share=1.0)
    optimizer: Any = method.build(model.parameters())
    optimizer.step(samples)
    after = torch.cat([g.flatten() for g in torch.autograd.grad(samples(), list(model.parameters()))])
    torch.testing.assert_close(flat(model), before - 0.8 * after, rtol=1e-8, atol=1e-10)


@pytest.mark.exact
def test_a_step_on_quadratics() -> None:
    """x⁺ = x - (Â + I / η)⁻¹ A x."""
    a, Given.a, start = definite(5, 0), definite(5, 1), torch.arange(1.0, 6.0).double()
    point = Point(start)
    method = Given(lr=0.2, eta=2.0, inner_steps=2000, inner_tol=1e-13)
    optimizer: Any = method.build(point.parameters())
    optimizer.step(samples_of(point, a))
    expected = start - torch.linalg.solve(Given.a + torch.eye(5).double() / 2, a @ start)
    torch.testing.assert_close(flat(point), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.exact
@pytest.mark.parametrize("steep", [20.0, 60.0])
def test_what_counts_is_the_difference_to_the_proxy(steep: float) -> None:
    """Theorem 1: the gradients of h needed do not grow with its L, as long as |A - Â| = δ = 1 stays."""
    a = torch.diag(torch.tensor([steep, steep / 2, 2.0, 1.0]).double())
    Given.a = a + torch.diag(torch.tensor([1.0, -1.0, 1.0, -0.5]).double())
    point = Point(torch.ones(4).double())
    method = Given(lr=1 / (steep + 4), eta=0.5, inner_steps=500, inner_tol=0.1)
    optimizer: Any = method.build(point.parameters())
    gradients = 0
    while flat(point).norm() > 0.02 and gradients < 50:
        optimizer.step(samples_of(point, a))
        gradients += 1
    assert gradients <= 12, "gradient descent takes about L log(100)"


def test_an_inner_gradient_small_enough_ends_the_steps() -> None:
    model, (x, y) = net(), data()
    called: list[int] = []

    def score(z: Tensor, targets: Tensor) -> Tensor:
        called.append(len(z))
        return F.cross_entropy(z, targets)

    samples: Any = Samples(model, [(x, y)], score)
    optimizer: Any = ProxyProx(inner_steps=7, inner_tol=0.0, proxy_share=0.25).build(model.parameters())
    optimizer.step(samples)
    assert called == [12] + 7 * [3], "one gradient of the batch, and one of the proxy for each inner step"
    called.clear()
    optimizer = ProxyProx(lr=0.4, eta=0.5, inner_steps=100, inner_tol=0.5).build(model.parameters())
    optimizer.step(samples)
    assert 2 < len(called) < 8


def test_one_seed_serves_all_passes_and_statistics_move_with_the_batch_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    twin, (x, y) = copy.deepcopy(model), data()
    seen: list[Tensor] = []

    def score(z: Tensor, targets: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return F.cross_entropy(z, targets)

    optimizer: Any = ProxyProx(lr=1e-12, inner_steps=3, inner_tol=0.0).build(model.parameters())
    for _ in range(2):
        found = optimizer.step(Samples(model, [(x, y)], score))
        after = twin(x)
    assert not found.requires_grad
    torch.testing.assert_close(list(model.buffers()), list(twin.buffers()))
    torch.testing.assert_close(seen[1], seen[3], rtol=0, atol=1e-6)
    assert not torch.allclose(seen[0], seen[4], atol=1e-3), "the next step has masks of its own"
    assert not torch.allclose(seen[4], after, atol=1e-3), "and so has what follows it"
    assert not torch.allclose(seen[1], seen[5], atol=1e-3)


def test_the_proxy_keeps_the_layout_of_inputs_and_the_autocast() -> None:
    model, (x, y) = net(), data(10)
    entered: list[int] = []

    def autocast() -> Any:
        entered.append(1)
        return torch.autocast("cpu", enabled=False)

    samples = Samples(model, [((x,), y), ((x[:3],), y[:3])], F.cross_entropy, autocast)
    torch.manual_seed(0)
    loss: Any = ProxyProx(proxy_share=0.5).proxy(samples)
    assert [(len(inputs[0]), len(targets)) for inputs, targets in loss.batches] == [(5, 5), (2, 2)]
    for (inputs,), targets in loss.batches:
        for row, target in zip(inputs, targets, strict=True):
            (place,) = (x == row).all(1).nonzero()
            assert y[place] == target
    loss()
    assert len(entered) == 2


def test_unused_parameters_are_no_error() -> None:
    model, (x, y) = net(), data()
    model.register_parameter("spare", nn.Parameter(torch.ones(2).double()))
    optimizer: Any = ProxyProx().build(model.parameters())
    optimizer.step(Samples(model, [(x, y)], F.cross_entropy))
    assert model.spare.tolist() == [1.0, 1.0]


def test_half_precision_is_followed_in_single() -> None:
    model, (x, y) = net(), data()
    twin: Any = copy.deepcopy(model).half()
    for one, inputs, score in ((model, x, F.cross_entropy), (twin, x.half(), lambda z, t: F.cross_entropy(z, t))):
        torch.manual_seed(0)
        optimizer: Any = ProxyProx(lr=0.2).build(one.parameters())
        optimizer.step(Samples(one, [(inputs, y)], score))
    torch.testing.assert_close(flat(twin).double(), flat(model), rtol=5e-3, atol=5e-3)
