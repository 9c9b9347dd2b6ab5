from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import oracle_sso
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.kit.samples import Samples
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.oracle import Draw, array, fields
from paper_toolbox.testing.sample_problem import SampleProblem, data, flat, half_squares, net, outputs, slopes
from paper_toolbox_sso import SSO
from torch import Tensor, nn


class TestSSO(OptimizerSuite):
    method = SSO(m=3)
    steps = 10
    recipe: ClassVar = {"model": "mlp?hidden=16&depth=1", "epochs": 2, "fields": {"m": 3, "eta": 2.0}}
    oracle = staticmethod(oracle_sso.sso)
    ranges: ClassVar = {
        "lr": st.floats(0.01, 0.5),
        "eta": st.floats(0.3, 5.0),
        "m": st.integers(1, 4),
        "delta": st.floats(0.01, 1.0),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Batches of several sizes, one or two a step."""
        problem, method = SampleProblem.drawn(draw), fields(draw, self.method, self.ranges)
        epoch, start = draw(st.sampled_from([None, 1, 3])), array(problem.start)
        expected = oracle_sso.sso(start, outputs, slopes, *problem.given, epoch or 1, **vars(method))
        yield problem.end(method, steps_per_epoch=epoch), expected


@pytest.mark.exact
def test_one_plain_inner_step_is_gradient_descent() -> None:
    """Section 3: ∇S(θₜ) = ∇L(θₜ), whatever η: with m = 1 SSO is SGD; groups have step sizes of their own."""
    model, (x, y) = net(), data()
    twin = copy.deepcopy(model)
    groups = [{"params": [model[0].weight, model[2].weight], "lr": 0.3}, {"params": [model[0].bias, model[2].bias]}]
    others: Any = [{"params": [twin[0].weight, twin[2].weight], "lr": 0.3}, {"params": [twin[0].bias, twin[2].bias]}]
    ours: Any = SSO(m=1, inner="sgd", lr=0.7, eta=0.2).build(groups)
    theirs = torch.optim.SGD(others, 0.7)
    for _ in range(5):
        found = ours.step(Samples(model, [(x, y)], F.cross_entropy))
        theirs.zero_grad()
        loss = F.cross_entropy(twin(x), y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        theirs.step()
        torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(flat(model), flat(twin), rtol=1e-12, atol=1e-14)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.exact
@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_of_half_squares_the_surrogate_is_the_loss(inner: Any) -> None:
    """Of |z - y|² / 2 with η = 1, S is L up to a constant: m inner steps are m steps on the loss."""
    model, (x, y) = net(), data()
    twin = copy.deepcopy(model)
    ours: Any = SSO(m=4, inner=inner, lr=0.05).build(model.parameters())
    ours.step(Samples(model, [(x, y)], half_squares))
    kind: Any = torch.optim.SGD if inner == "sgd" else torch.optim.Adam
    other = kind(twin.parameters(), 0.05)
    for _ in range(4):
        other.zero_grad()
        half_squares(twin(x), y).backward()  # type: ignore[no-untyped-call]  # torch's own signature
        other.step()
    torch.testing.assert_close(flat(model), flat(twin), rtol=1e-9, atol=1e-12)


@pytest.mark.exact
def test_the_surrogate_lies_above_the_loss() -> None:
    """Section 3: L(θ) ≤ L(θₜ) + S(θ) where η ≤ 1 / L, and so full-batch steps descend; softmax has L ≤ 1 / 2."""
    model, (x, y) = net(), data()
    samples, method = Samples(model, [(x, y)], F.cross_entropy), SSO(eta=2.0, m=5)
    optimizer: Any = method.build(model.parameters())
    surrogate, start = method.surrogate(optimizer, samples, 2.0)
    before = [p.detach().clone() for p in model.parameters()]
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for size in (1e-3, 0.1, 1.0, 3.0) * 10:
            for p, b in zip(model.parameters(), before, strict=True):
                p.copy_(b + size * torch.randn(b.shape, generator=draw, dtype=b.dtype))
            assert samples() <= start + surrogate() + 1e-12
        for p, b in zip(model.parameters(), before, strict=True):
            p.copy_(b)
    found = [float(optimizer.step(samples)) for _ in range(6)]
    assert all(b < a for a, b in itertools.pairwise(found))


def test_the_loss_is_called_once_with_one_mask_for_all_passes_and_statistics_move_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    twin, (x, y) = copy.deepcopy(model), data()
    called: list[Tensor] = []

    def score(z: Tensor, targets: Tensor) -> Tensor:
        called.append(z.detach().clone())
        return F.cross_entropy(z, targets)

    optimizer: Any = SSO(m=5, lr=1e-9, inner="sgd").build(model.parameters())
    method: Any = optimizer.method
    for _ in range(2):
        optimizer.step(Samples(model, [(x, y)], score))
        twin(x)
    assert len(called) == 2
    assert not torch.allclose(called[0], called[1]), "each step has masks of its own"
    assert not torch.allclose(called[1], copy.deepcopy(model)(x)), "and so has what follows it"
    torch.testing.assert_close(list(model.buffers()), list(twin.buffers()))
    surrogate, _ = method.surrogate(optimizer, Samples(model, [(x, y)], score), 1.0)
    assert surrogate().item() == surrogate().item() == 0.0, "at its own point S is 0 with the same masks"


@pytest.mark.parametrize(("size", "moves"), [(0.98e-6, False), (1.02e-6, True)])
def test_a_flat_surrogate_is_left_alone(size: float, moves: bool) -> None:
    model, (x, y) = net(), data()
    loss = F.cross_entropy(model(x), y)
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm().item()
    before = flat(model)
    optimizer: Any = SSO(inner="adam", lr=0.1).build(model.parameters())
    optimizer.step(Samples(model, [(x, y)], lambda z, t: size / norm * F.cross_entropy(z, t)))
    assert torch.equal(flat(model), before) is not moves


def test_unused_parameters_are_no_error_and_the_loss_is_that_of_all_batches() -> None:
    model = net()
    before = flat(model)
    model.register_parameter("spare", nn.Parameter(torch.ones(2).double()))
    optimizer: Any = SSO().build(model.parameters())
    samples = Samples(model, [data(5), data(3)], F.cross_entropy)
    expected = samples().detach()
    found = optimizer.step(samples)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert not torch.equal(flat(model)[:-2], before)
    assert model.spare.tolist() == [1.0, 1.0]


def test_a_line_search_that_finds_nothing_ends_after_a_hundred_trials() -> None:
    model, (x, y) = net(), data()
    optimizer: Any = SSO(lr=1e9, m=1).build(model.parameters())
    optimizer.step(Samples(model, [(x, y)], F.cross_entropy))
    assert optimizer.common["share"] == pytest.approx(1.8 * 0.9**99)


def test_tokens_are_samples_too() -> None:
    """Of outputs (B, T, V) the mean is over B T tokens: the same step as of their flat outputs."""
    model, x, y = net(), torch.randn(2, 5, 4).double(), torch.arange(10).view(2, 5) % 3
    twin = copy.deepcopy(model)
    for one, inputs, targets in ((model, x, y), (twin, x.flatten(0, 1), y.flatten())):
        optimizer: Any = SSO(ada=True, m=3).build(one.parameters())
        for _ in range(2):
            optimizer.step(
                Samples(one, [(inputs, targets)], lambda z, t: F.cross_entropy(z.flatten(0, -2), t.flatten()))
            )
    torch.testing.assert_close(flat(model), flat(twin))


def test_growth_is_kept_in_the_checkpoint() -> None:
    model = net()
    optimizer = SSO().build(model.parameters(), steps_per_epoch=4)
    assert optimizer.state_dict()["param_groups"][0]["growth"] == pytest.approx(1.8**0.25)
