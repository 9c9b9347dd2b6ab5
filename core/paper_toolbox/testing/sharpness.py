"""How sharply the training loss curves where an optimizer ends: for claims about flat minima."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def trained(method: Any, seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network after 500 steps of ``method`` on half of the digits, and these; one seed, one start and one order."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    digits = load_digits()
    half = torch.randperm(len(digits.data))[: len(digits.data) // 2]
    inputs = torch.from_numpy(digits.data).float()[half] / 16
    targets = torch.from_numpy(digits.target)[half]
    built = method.build(net.parameters())
    for _ in range(500):
        batch = torch.randint(len(inputs), (64,))

        def closure(x: Tensor = inputs[batch], y: Tensor = targets[batch]) -> Tensor:
            built.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            return loss

        built.step(closure)
    return net, inputs, targets


def sharpness(net: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The largest eigenvalue of the Hessian of the training loss, by 50 power iterations; ()."""
    weights = list(net.parameters())
    slopes = torch.autograd.grad(F.cross_entropy(net(inputs), targets), weights, create_graph=True)
    slope = torch.cat([g.flatten() for g in slopes])
    v = torch.randn_like(slope)
    for _ in range(50):
        v = v / v.norm()
        v = torch.cat([h.flatten() for h in torch.autograd.grad(slope @ v, weights, retain_graph=True)])
    largest: Tensor = v.norm()
    return largest
