"""Run in two processes: rules that step on shards of a model end where they end on the whole of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from paper_toolbox import Optimizer, catalog, param
from paper_toolbox.engine.loop.shards import shard, whole
from paper_toolbox.errors import NeedError
from paper_toolbox.host import Host
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor, nn

STEPS = 4


@dataclass(frozen=True, kw_only=True)
class RowMomentum(Rule):
    """Steps of length lr in every row, along a momentum of rows of the same length."""

    view = "rows"
    shards = "rows"

    lr: float = param(0.1, "length of a row's step")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p), "n": p.new_zeros(p.shape[:1])}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        rows = grad if grad.ndim == 2 else grad[:, None]
        length = rows.norm(dim=1)
        state["n"].add_(length)
        state["m"].lerp_((rows / length.clamp(min=1e-12)[:, None]).view_as(grad), 0.5)
        p.sub_(state["m"], alpha=self.lr)


@dataclass(frozen=True, kw_only=True)
class WholeNorm(Rule):
    """Looks at a whole tensor, and says so by its view."""

    view = "tensor"

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        p.sub_(grad / grad.norm())


def net() -> nn.Module:
    """Rows that two processes share unevenly, a tensor of a single row, and one that only the first has."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def trained(method: Optimizer, net: nn.Module, batches: list[Tensor]) -> torch.optim.Optimizer:
    """The optimizer after a step of ``net`` on each of ``batches``."""
    optimizer = method.build(net.parameters())
    for x in batches:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    return optimizer


def sharded() -> nn.Module:
    return shard(net(), torch.device("cpu"), "fp32")


def check(method: Optimizer, rank: int) -> None:
    """Weights and state, gathered, are those of one process that sees both shares of every batch."""
    draw = torch.Generator().manual_seed(1)
    alone_net, parts = net(), sharded()
    batches = [torch.randn(8, 6, dtype=torch.float64, generator=draw) for _ in range(STEPS)]
    alone = trained(method, alone_net, batches)
    shared = trained(method, parts, [x.chunk(2)[rank] for x in batches])
    for p, q in zip(alone_net.parameters(), parts.parameters(), strict=True):
        found, expected = whole({"p": q.data, **shared.state[q]}), {"p": p.data, **alone.state[p]}
        torch.testing.assert_close(found, expected, msg=lambda text: f"{method}: {text}")


def main() -> None:
    """Every optimizer that declares itself right on shards."""
    torch.distributed.init_process_group("gloo")
    rank, host = torch.distributed.get_rank(), Host()
    offered = [host.method_of(card)() for card in catalog.cards() if card.kind == "optimizer"]
    fit = [method for method in offered if isinstance(method, Rule) and method.shards != "none"]
    assert len(fit) >= 11, fit
    for method in [*fit, RowMomentum()]:
        check(method, rank)
    with pytest.raises(NeedError, match="WholeNorm looks at whole tensors: it cannot train shards of them"):
        WholeNorm().build(sharded().parameters())
    torch.distributed.destroy_process_group()
