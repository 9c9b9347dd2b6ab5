"""A process of a run that another one left alone."""

from __future__ import annotations

import pytest
import torch
from paper_toolbox.engine.loop import together
from paper_toolbox.engine.loop.together import left_alone
from paper_toolbox.errors import ToolboxError

TAKEN = "The server socket has failed to listen on any local network address. port: 29500, code: -98, name: EADDRINUSE"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE", 0.0)


def test_the_other_ended_before_this_one_joined_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ToolboxError, match="see what that one said"), left_alone():
        raise torch.distributed.DistNetworkError("Connection reset by peer")


def test_an_address_in_use_is_no_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(torch.distributed.DistNetworkError, match="EADDRINUSE"), left_alone():
        raise torch.distributed.DistNetworkError(TAKEN)


def test_a_single_process_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match="socket"), left_alone():
        raise RuntimeError("a data reader's socket closed")
