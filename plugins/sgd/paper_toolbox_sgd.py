"""SGD: step against the gradient, with momentum, dampening, coupled decay and Nesterov's look-ahead, as in torch.

Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SGD(Rule):
    """Stochastic gradient descent with heavy-ball or Nesterov momentum."""

    lr: float = param(1e-2, "step size", low=0)
    momentum: float = param(0.0, "share of the last step that is kept", low=0)
    dampening: float = param(0.0, "share of the gradient kept out of the momentum", high=1)
    weight_decay: float = param(0.0, "decay added to the gradient", low=0)
    nesterov: bool = param(False, "look one momentum step ahead")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"v": torch.zeros_like(p)} if self.momentum else {}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        mu, t = self.momentum, state["step"]
        # equivalent: drop else: without decay, adding 0 · p changes nothing; leaving it out saves a pass
        g = grad.add(p, alpha=self.weight_decay) if self.weight_decay else grad
        if mu:
            v = state["v"]
            v.mul_(mu).add_(g, alpha=1 - self.dampening if t > 1 else 1.0)  # the first gradient is not dampened
            g = g.add(v, alpha=mu) if self.nesterov else v
        p.add_(g, alpha=-self.lr)  # Differs: η stands outside v, as in torch; while η stays, the path is the paper's

    def fused(self, params: list[Tensor], grads: list[Tensor], states: list[State], steps: list[Tensor]) -> None:
        # equivalent: self.weight_decay → self.lr: the kernel gives the same numbers, in some more time
        if not (self.momentum or self.weight_decay):
            torch._foreach_add_(params, grads, alpha=-self.lr)
            return
        torch._fused_sgd_(
            params,
            grads,
            [state["v"] for state in states] if self.momentum else [],
            lr=self.lr,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=states[0]["step"] == 1,
        )


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"sgd": SGD}
