"""Public implementations of Lion; of Lion-K with another K there are none."""

from __future__ import annotations

from typing import Any

from paper_toolbox.testing.peers import Peer
from paper_toolbox_lion_k import Lion, LionK
from torch import Tensor

LION = (Lion(lr=0.01), Lion(lr=0.01, betas=(0.8, 0.95), weight_decay=0.1))
ONE_BETA = (Lion(lr=0.01, betas=(0.9, 0.9)), Lion(lr=0.01, betas=(0.7, 0.7), weight_decay=0.1))
L1 = (LionK(lr=0.01), LionK(lr=0.01, betas=(0.8, 0.95), weight_decay=0.1))


def theirs(method: Lion | LionK, params: list[Tensor]) -> Any:
    import pytorch_optimizer

    return pytorch_optimizer.Lion(params, lr=method.lr, betas=method.betas, weight_decay=method.weight_decay)


def signum(method: Lion, params: list[Tensor]) -> Any:
    """Lion with β₁ = β₂ is the sign of a running mean."""
    import pytorch_optimizer

    return pytorch_optimizer.SignSGD(params, method.lr, momentum=method.betas[0], weight_decay=method.weight_decay)


def tiger(method: Lion, params: list[Tensor]) -> Any:
    import pytorch_optimizer

    return pytorch_optimizer.Tiger(params, method.lr, beta=method.betas[0], weight_decay=method.weight_decay)


PEERS = (
    Peer("lion", "pytorch_optimizer", "Lion", theirs, LION),
    Peer("lion", "pytorch_optimizer", "SignSGD for β₁ = β₂", signum, ONE_BETA, partial=True),
    Peer("lion", "pytorch_optimizer", "Tiger for β₁ = β₂", tiger, ONE_BETA, partial=True),
    Peer("lion_k", "pytorch_optimizer", "Lion", theirs, L1),
)
