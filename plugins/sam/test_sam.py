from __future__ import annotations

import copy
from typing import ClassVar

import oracle_sam
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import ParamError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_passes import descend, gradient_used
from paper_toolbox_sam import SAM
from torch import nn


class TestSAM(OptimizerSuite):
    method = SAM(lr=0.05, momentum=0.9)
    oracle = staticmethod(oracle_sam.sam)
    oracle_of = "model"  # the norm is that of all tensors together
    still = ({"rho": 0.0},)
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.5),
        "momentum": st.floats(0.0, 0.95),
        "weight_decay": st.floats(0.0, 0.3),
        "rho": st.floats(0.01, 2.0),
    }


@pytest.mark.exact
def test_uses_the_gradient_of_the_worst_point_nearby() -> None:
    """On w·A w / 2 the gradient used is A (w + ρ A w / |A w|), exactly (eq. 3); plain descent would use A w."""
    a = torch.diag(torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64))
    w = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    slope, found = a @ w, gradient_used(SAM(rho=0.5, eps=0.0), w, lambda w: w @ a @ w / 2)
    torch.testing.assert_close(found, a @ (w + 0.5 * slope / slope.norm()), rtol=1e-13, atol=0)


def test_equals_pytorch_optimizer() -> None:
    peer = pytest.importorskip("pytorch_optimizer")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    inputs, targets = torch.randn(20, 6, dtype=torch.float64), torch.arange(20) % 4
    twin = copy.deepcopy(net)
    ours = SAM(rho=0.1, lr=0.1, momentum=0.9, weight_decay=0.01).build(net.parameters())
    theirs = peer.SAM(twin.parameters(), torch.optim.SGD, rho=0.1, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(20):
        descend(ours, net, inputs, targets)
        theirs.zero_grad()
        F.cross_entropy(twin(inputs), targets).backward()  # type: ignore[no-untyped-call]  # torch's own signature
        descend(theirs, twin, inputs, targets)
    # the peer takes its norm in float32
    torch.testing.assert_close(list(net.parameters()), list(twin.parameters()), rtol=1e-6, atol=1e-8)


def test_bases_that_do_not_fit_are_named() -> None:
    with pytest.raises(ParamError, match="has no field 'momentum'"):
        SAM(base="adamw", momentum=0.9).build([nn.Parameter(torch.ones(1))])
    with pytest.raises(ParamError, match="its step takes a closure"):
        SAM(base="sam").build([nn.Parameter(torch.ones(1))])
    with pytest.raises(ParamError, match="needs a closure"):
        SAM().build([nn.Parameter(torch.ones(1))]).step()
