"""Forward gradient: train without backpropagation, by directional derivatives of the forward pass.

Baydin et al., "Gradients without Backpropagation", 2022, arXiv:2202.08587.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from paper_toolbox import Optimizer, hookimpl, param
from paper_toolbox.errors import ModelError, ParamError
from paper_toolbox.kit.forward import derivative, prepare
from paper_toolbox.kit.passes import repeatable
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ForwardGradient(Optimizer):
    """Descend along g = (∇f·v) v, with v drawn at random: unbiased, and free of any backward pass (Algorithm 1)."""

    closure = "loss"
    traits = ("forward_mode",)

    lr: float = param(2e-4, "step size at the start", low=0)
    decay: float = param(1e-4, "the step size falls as exp(-decay · t)", low=0)
    k: int = param(1, "tangents, one forward pass each, whose estimates are averaged", low=1)
    tangent: Literal["gaussian", "rademacher"] = param("gaussian", "how v is drawn")

    def build(self, params: Iterable[Any], *, model: nn.Module) -> torch.optim.Optimizer:
        """Parameters of ``model`` alone can be trained: their derivative is carried through its forward pass."""
        # equivalent: drop prepare: it only keeps a warning of torch's out of the first step
        prepare()
        return _Forward(self, params, model)

    def draw(self, p: Tensor) -> Tensor:
        """v, like p, with E[v vᵀ] = I."""
        v = torch.randn_like(p)
        return v if self.tangent == "gaussian" else torch.ones_like(p).copysign(v)


class _Forward(torch.optim.Optimizer):
    def __init__(self, method: ForwardGradient, params: Iterable[Any], model: nn.Module) -> None:
        self.method, self.model = method, model
        groups = list(params)
        if not groups:
            raise ModelError("ForwardGradient was given no parameters: is the model empty or wholly frozen?")
        super().__init__(groups, {f.name: getattr(method, f.name) for f in fields(method)} | {"step": 0})
        strangers = set(self._trained()) - set(model.parameters())
        if strangers:
            shape = tuple(next(iter(strangers)).shape)
            raise ModelError(
                f"forward_gradient trains a model's own parameters; one of shape {shape} is not the model's"
            )

    def _trained(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` computes the loss, with no backward, and is called once per tangent."""
        if closure is None:
            raise ParamError("forward_gradient.step needs a closure that computes the loss")
        trained = self._trained()
        gradient = [torch.zeros_like(p) for p in trained]
        look = repeatable(functools.partial(derivative, self.model, trained), trained, self.model)
        for _ in range(self.method.k):
            tangents = [self.method.draw(p) for p in trained]
            loss, slope = look(tangents, closure)
            for g, v in zip(gradient, tangents, strict=True):
                g.add_(v * slope.to(v.dtype), alpha=1 / self.method.k)
        self._descend(dict(zip(trained, gradient, strict=True)))
        return loss

    def _descend(self, gradient: dict[Tensor, Tensor]) -> None:
        for group in self.param_groups:
            lr = group["lr"] * math.exp(-group["decay"] * group["step"])
            group["step"] += 1
            for p in group["params"]:
                if p in gradient:
                    p.sub_(gradient[p], alpha=lr)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"method": self.method, "model": self.model}


@hookimpl
def optimizer() -> dict[str, type[Optimizer]]:
    return {"forward_gradient": ForwardGradient}
