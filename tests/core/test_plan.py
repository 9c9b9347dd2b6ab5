"""A group's plan: it holds as long as its tensors stay where they are, and no longer; pieces are a whole step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from paper_toolbox import param
from paper_toolbox.kit import plan
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sum(Rule):
    """The weights lose the sum of all gradients so far; the state is replaced, not changed."""

    lr: float = param(1.0, "step size", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"sum": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        SIZES.append(p.numel())
        state["sum"] = state["sum"] + grad
        p.sub_(state["sum"] * state["step"], alpha=self.lr)


SIZES: list[int] = []  # of the tensors that updates were called with
BIG = 5000


@pytest.fixture(autouse=True)
def _no_sizes() -> None:
    SIZES.clear()


def points() -> list[nn.Parameter]:
    """Two that are joined, a big one, a small and a big one whose memory runs otherwise, and one with gaps in it."""
    image = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    shapes = (torch.zeros(3), torch.zeros(2, 2), torch.zeros(BIG), image, torch.zeros(60, 90).t(), torch.zeros(4, 6))
    return [nn.Parameter(x) for x in (*shapes[:-1], shapes[-1][:, ::2])]


def step(optimizer: Any, params: list[nn.Parameter]) -> None:
    for i, p in enumerate(params):
        p.grad = torch.arange(p.numel(), dtype=p.dtype).view(p.shape) + i
    optimizer.step()


def expected(p: Tensor, i: int, steps: int) -> Tensor:
    """Gradient g at every step: after the first 1·g is lost, after the second 2·2g more, and so on."""
    grad = torch.arange(p.numel(), dtype=p.dtype).view(p.shape) + i
    return -grad * sum(t * t for t in range(1, steps + 1))


@pytest.mark.parametrize("engine", ["auto", "eager", "compiled"])
def test_every_layout_is_stepped_in_its_own_memory(engine: Any) -> None:
    params = points()
    optimizer = Sum().build(params, engine=engine)
    places = [p.data_ptr() for p in params]
    for _ in range(3):
        step(optimizer, params)
    for i, p in enumerate(params):
        torch.testing.assert_close(p.detach(), expected(p, i, 3))
    assert [p.data_ptr() for p in params] == places


def test_small_tensors_step_as_one_and_big_ones_alone() -> None:
    params = points()
    step(Sum().build(params), params)
    assert sorted(SIZES) == [12, 3 + 4 + 96, BIG, 5400]


def moved(params: list[nn.Parameter], optimizer: Any) -> None:
    for p in params:
        p.data = p.data.clone()


def state_moved(params: list[nn.Parameter], optimizer: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def laid_out(params: list[nn.Parameter], optimizer: Any) -> None:
    params[3].data = params[3].data.contiguous()
    params[5].data = params[5].data.contiguous()


@pytest.mark.parametrize("engine", ["auto", "compiled"])
@pytest.mark.parametrize("change", [moved, state_moved, laid_out])
def test_what_moved_is_seen(engine: Any, change: Callable[..., None]) -> None:
    params = points()
    optimizer: Any = Sum().build(params, engine=engine)
    step(optimizer, params)
    before = optimizer.run.plans.of[0]
    step(optimizer, params)
    assert optimizer.run.plans.of[0] is before, "nothing moved"
    change(params, optimizer)
    step(optimizer, params)
    assert optimizer.run.plans.of[0] is not before
    for i, p in enumerate(params):
        torch.testing.assert_close(p.detach(), expected(p, i, 3))
        torch.testing.assert_close(optimizer.state[p]["sum"] * -14, 3 * p.detach())


@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_tensors_of_other_counts_are_not_joined(engine: Any) -> None:
    params = points()
    optimizer = Sum().build(params, engine=engine)
    step(optimizer, params[1:])
    params[0].grad = None
    for _ in range(2):
        step(optimizer, params)
    torch.testing.assert_close(params[0].detach(), expected(params[0], 0, 2))
    # its gradient was one less at the first step, and counts in all three: 1 + 2·2 + 3·3 times, less 1 + 2 + 3
    torch.testing.assert_close(params[1].detach(), expected(params[1], 1, 3) + 6)


@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_tensors_of_other_states_are_not_joined(engine: Any) -> None:
    class Partly(Sum):
        """Vectors have no momentum."""

        def init(self, p: Tensor) -> dict[str, Tensor]:
            return super().init(p) if p.ndim > 1 else {}

        def update(self, p: Tensor, grad: Tensor, state: State) -> None:
            if "sum" in state:
                super().update(p, grad, state)
            else:
                p.sub_(grad, alpha=self.lr)

    params = points()[:2]
    optimizer = Partly().build(params, engine=engine)
    for _ in range(2):
        step(optimizer, params)
    torch.testing.assert_close(params[0].detach(), 2 * expected(params[0], 0, 1))
    torch.testing.assert_close(params[1].detach(), expected(params[1], 1, 2))


def test_groups_have_plans_of_their_own() -> None:
    params = points()
    optimizer: Any = Sum().build([{"params": params[:3]}, {"params": params[3:], "lr": 2.0}])
    for _ in range(2):
        step(optimizer, params)
    assert optimizer.run.plans.of.keys() == {0, 1}
    torch.testing.assert_close(params[0].detach(), expected(params[0], 0, 2))
    torch.testing.assert_close(params[4].detach(), 2 * expected(params[4], 4, 2))


def test_an_elementwise_step_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paper_toolbox.kit.engines.PIECE", 2000)
    params = points()
    optimizer = Sum().build(params)
    for _ in range(2):
        step(optimizer, params)
    assert max(SIZES) == 2000
    assert SIZES.count(BIG - 2 * 2000) == 2, "the last piece of the big one"
    for i, p in enumerate(params):
        torch.testing.assert_close(p.detach(), expected(p, i, 2))


def test_rows_are_not_joined_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(Sum):
        view = "rows"

    monkeypatch.setattr("paper_toolbox.kit.engines.PIECE", 2)
    params = points()[1:]
    step(Rows().build(params), params)
    assert sorted(set(SIZES)) == [2, 4, 12, 96, 5400], "of the vector alone pieces were made"
    assert SIZES.count(2) == BIG // 2
    assert plan.SMALL < BIG
