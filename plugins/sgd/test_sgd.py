from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from paper_toolbox.testing.optimizer import OptimizerSuite, Quadratic, start
from paper_toolbox_sgd import SGD


class TestSGD(OptimizerSuite):
    method = SGD(lr=0.05, momentum=0.9, weight_decay=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
)
def test_equals_torch(fields: dict[str, Any]) -> None:
    model = Quadratic(start())
    twin = copy.deepcopy(model)
    ours, theirs = SGD(lr=0.05, **fields).build(model.parameters()), torch.optim.SGD(twin.parameters(), 0.05, **fields)
    for _ in range(20):
        for one, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            one().backward()
            optimizer.step()
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()), rtol=1e-12, atol=1e-14)


def test_nesterov_looks_one_step_ahead() -> None:
    """On a constant gradient g the first step is (1 + μ) g, where heavy-ball momentum takes g."""
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    SGD(lr=1.0, momentum=0.9, nesterov=True).build([p]).step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -1.9))
