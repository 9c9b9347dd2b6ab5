from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from paper_toolbox.kit.passes import buffers_kept, kept, moved, repeatable, replay
from torch import Tensor, nn


def test_all_calls_draw_what_the_first_one_drew_and_it_alone_counts() -> None:
    norm = nn.BatchNorm1d(2)
    torch.manual_seed(0)
    expected, then = torch.rand(3), torch.rand(3)
    torch.manual_seed(0)

    def look(scale: float) -> Tensor:
        norm(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
        return scale * torch.rand(3)

    again = repeatable(look, [], norm)
    assert torch.equal(again(1.0), expected)
    assert torch.equal(again(scale=2.0), 2 * expected)
    assert norm.num_batches_tracked == 1
    assert torch.equal(torch.rand(3), then)
    assert torch.equal(again(1.0), expected)


def test_generators_of_devices_are_set_too(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {"now": 3}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state["now"])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda value, device: state.update(now=value))

    class There:
        is_cuda, device = True, torch.device("cuda", 0)

    again = replay([There()])  # type: ignore[list-item]  # a stand-in for a tensor
    state["now"] = 5
    with again():
        assert state["now"] == 3
    assert state["now"] == 5


def test_what_moved_comes_back_bit_for_bit_after_a_failure_too() -> None:
    x = nn.Parameter(torch.full((3,), 0.1))
    with moved([x], [torch.ones(3)], 0.3):
        torch.testing.assert_close(x.detach(), torch.full((3,), 0.4))
        assert torch.is_grad_enabled()
    assert torch.equal(x, torch.full((3,), 0.1))
    with contextlib.suppress(ArithmeticError), kept([x]) as before:
        x.data.mul_(7)
        raise ArithmeticError
    assert torch.equal(before[0], torch.full((3,), 0.1))
    assert torch.equal(x, torch.full((3,), 0.1))
    with buffers_kept(None):
        pass
