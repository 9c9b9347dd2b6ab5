"""AdamW: Adam with the weight decay taken out of the gradient.

Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.kit.rule import Rule, State
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdamW(Rule):
    """Adam on the loss alone; the weights shrink beside it (Algorithm 2, decay multiplied by the step size)."""

    lr: float = param(1e-3, "step size", low=0)
    betas: tuple[float, float] = param((0.9, 0.999), "decay of the two moments", low=0, below=1)
    eps: float = param(1e-8, "added to the root of the second moment", low=0)
    weight_decay: float = param(1e-2, "decoupled decay, multiplied by lr", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), t, m, v = self.betas, state["step"], state["m"], state["v"]
        p.mul_(1 - self.lr * self.weight_decay)  # Differs: λ is multiplied by α, as in torch
        m.lerp_(grad, 1 - b1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        root = v.sqrt().div_((1 - b2**t) ** 0.5).add_(self.eps)
        p.addcdiv_(m, root, value=-self.lr / (1 - b1**t))

    def fused(self, params: list[Tensor], grads: list[Tensor], states: list[State], steps: list[Tensor]) -> None:
        (b1, b2), m, v = self.betas, [state["m"] for state in states], [state["v"] for state in states]
        torch._fused_adamw_(
            *(params, grads, m, v, [], steps),
            lr=self.lr,
            beta1=b1,
            beta2=b2,
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )


@hookimpl
def optimizer() -> dict[str, type[Rule]]:
    return {"adamw": AdamW}
