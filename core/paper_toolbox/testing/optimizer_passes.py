"""What an optimizer must do that runs the batch of a step several times; the suite of the kind has these tests, too."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import needs
from ..kinds import Optimizer


def built(
    method: Any, model: nn.Module, params: Iterable[Any] | None = None, engine: str = "eager", steps: int = 100
) -> Any:
    """``method`` over ``params`` (all of the model's), with whatever it may ask for."""
    given = {
        "model": model,
        "engine": engine,
        "steps_total": steps,
        "steps_per_epoch": max(1, steps // 10),
        "generator": torch.Generator().manual_seed(0),
    }
    asked = needs.supply(method.build, given)
    return method.build(list(model.parameters()) if params is None else params, **asked)


def net_and_batch() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network with BatchNorm and dropout, and 20 samples."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 4)).double()
    return net, torch.randn(20, 6, dtype=torch.float64), torch.arange(20) % 4


def descend(optimizer: Any, net: nn.Module, inputs: Tensor, targets: Tensor, *, set_to_none: bool = True) -> Any:
    """One step whose closure runs forward and backward; what it returns."""

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none)
        loss = F.cross_entropy(net(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        return loss

    return optimizer.step(closure)


def gradient_used(
    method: Any, start: Tensor, loss: Callable[[Tensor], Tensor], seen: list[Tensor] | None = None
) -> Tensor:
    """What a wrapper of plain descent hands to it in the first step from ``start``, like it.

    ``seen`` gets the points at which the gradient of ``loss`` is taken.
    """
    w = nn.Parameter(start.clone())
    optimizer: Any = dataclasses.replace(method, lr=1.0).build([w])

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(w)
        value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        if seen is not None:
            seen.append(w.detach().clone())
        return value

    optimizer.step(closure)
    return start - w.detach()


class RunsPasses:
    """Of methods whose closure is one pass over the batch: ``gradient`` or ``loss``."""

    method: Optimizer
    still: ClassVar[Sequence[dict[str, Any]]] = ()  #: fields with which a wrapper is its base, however many its passes

    if TYPE_CHECKING:  # the suite's, whose part this is

        def step(self, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None: ...

    def test_passes_of_a_step_draw_one_mask_and_move_statistics_once(self) -> None:
        if self.method.closure not in ("gradient", "loss"):
            return
        net, inputs, targets = net_and_batch()
        twin, optimizer, masks, firsts = copy.deepcopy(net), built(self.method, net), list[Tensor](), []
        net[3].register_forward_hook(lambda _, args, out: masks.append(out == 0))
        for _ in range(2):
            firsts.append(len(masks))
            self.step(optimizer, lambda: F.cross_entropy(net(inputs), targets))
            assert all(torch.equal(mask, masks[firsts[-1]]) for mask in masks[firsts[-1] :]), "other masks in a step"
            twin(inputs)
            assert len(firsts) > 1 or all(map(torch.equal, net.buffers(), twin.buffers())), "statistics moved again"
        assert not torch.equal(masks[0], masks[firsts[1]]), "the next step has the same masks"

    def test_a_pass_that_fails_leaves_the_weights_where_they_were(self) -> None:
        if self.method.closure not in ("gradient", "loss"):
            return
        net, inputs, targets = net_and_batch()
        before, optimizer, passes = copy.deepcopy(net), built(self.method, net), iter([False, True])

        def loss() -> Tensor:
            if next(passes):
                raise ArithmeticError
            return F.cross_entropy(net(inputs), targets)

        with contextlib.suppress(ArithmeticError):
            self.step(optimizer, loss)
            return  # one pass was all
        assert all(map(torch.equal, net.parameters(), before.parameters()))

    def test_gradients_may_be_zeroed_in_place_and_without_any_nothing_moves(self) -> None:
        if self.method.closure != "gradient":
            return
        ends = []
        for set_to_none in (True, False):
            net, inputs, targets = net_and_batch()
            before, optimizer = copy.deepcopy(net), built(self.method, net)
            optimizer.step(lambda: torch.zeros(()))
            assert all(map(torch.equal, net.parameters(), before.parameters()))
            for _ in range(2):
                descend(optimizer, net, inputs, targets, set_to_none=set_to_none)
            ends.append(list(net.parameters()))
        assert all(map(torch.equal, *ends))

    @pytest.mark.parametrize("base", ["sgd", "adamw"])
    def test_with_nothing_to_do_it_is_its_base_bit_for_bit(self, base: str) -> None:
        for still in self.still:
            fields = {"base": base, "lr": 0.05, "momentum": None, "weight_decay": None} | still
            method: Any = dataclasses.replace(self.method, **fields)
            (net, *batch), twin = net_and_batch(), net_and_batch()[0]
            ours, theirs = built(method, net), built(method.inner(), twin)
            torch.manual_seed(1)
            losses = [descend(ours, net, *batch) for _ in range(5)]
            torch.manual_seed(1)
            assert all(torch.equal(loss, descend(theirs, twin, *batch)) for loss in losses)
            assert all(map(torch.equal, net.state_dict().values(), twin.state_dict().values()))
