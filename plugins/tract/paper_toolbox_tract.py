"""TrAct: train the first layer's pre-activations rather than its weights, whatever the optimizer.

Petersen et al., "TrAct: Making First-layer Pre-Activations Trainable", NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import ModelError, NeedError
from paper_toolbox.kit.capture import watch_inputs
from paper_toolbox.kit.persample import reads
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.wrap import WrappedOptimizer, Wrapper
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TrAct(Wrapper):
    """The first weight's gradient times (Xᵀ X / b + λ I)⁻¹, X being what the layer reads."""

    around = ("none", "gradient")
    closure = "gradient"
    traits = ("plain_weights",)

    lam: float = param(
        0.1, "λ: how far the weights stay from solving for the pre-activations", above=0, search=(0.01, 1)
    )

    def step(self, run: WrappedOptimizer, closure: Callable[[], Any]) -> Any:
        """The layer is watched while ``closure`` runs, and at no other time: nothing stays behind in the model."""
        if run.model is None:
            raise NeedError("TrAct needs the model, whose first layer it trains: build(params, model=model)")
        layer = first_layer(run.model)

        def watched() -> Any:
            with self.changed(layer):
                return closure()

        return run.descend(watched)

    @contextmanager
    def changed(self, layer: Any) -> Iterator[None]:
        """Each backward gives the weight of ``layer`` its new gradient, for the inputs since the one before."""
        seen: list[Tensor] = []

        def see(_: nn.Module, x: Tensor) -> None:
            if torch.is_grad_enabled():
                seen.append(x)

        def change(grad: Tensor) -> Tensor:
            x = torch.cat([reads(layer, x).flatten(0, 1) for x in seen])
            seen.clear()
            return self.conditioned(grad.flatten(1), x).reshape(grad.shape).to(grad.dtype)

        handle = layer.weight.register_hook(change)
        try:
            with watch_inputs([layer], see):
                yield
        finally:
            handle.remove()

    def conditioned(self, g: Tensor, x: Tensor) -> Tensor:
        """G (Xᵀ X / b + λ I)⁻¹ in float32 or wider, by the smaller inverse. g (O, I), x (b, I) -> (O, I)."""
        g, x = widen(g), widen(x)
        b, width = x.shape
        square = x.T @ x if b >= width else x @ x.T
        square = square / b + self.lam * torch.eye(len(square), dtype=x.dtype, device=x.device)
        solved: Tensor = torch.linalg.solve(square, g if b >= width else g @ x.T, left=False)
        return solved if b >= width else (g - solved @ x / b) / self.lam


def first_layer(model: nn.Module) -> Any:
    """The layer registered first of those with a weight of two axes or more; one that does not fit is refused."""
    for name, layer in model.named_modules():
        if any(layer.children()) or not any(p.ndim > 1 for p in layer.parameters()):
            continue
        if not isinstance(layer, nn.Linear | nn.Conv2d) or getattr(layer, "groups", 1) > 1:
            what = f"{type(layer).__name__}({layer.extra_repr()})"
            raise ModelError(f"TrAct trains a linear layer or an ungrouped 2-D convolution; first is {name}, {what}")
        if not layer.weight.requires_grad:
            raise ModelError(f"TrAct changes the gradient of {name}.weight, the first layer's, which is frozen")
        return layer
    raise ModelError(f"TrAct trains a first layer, and {type(model).__name__} has none with a weight matrix")


@hookimpl
def optimizer() -> dict[str, type[Wrapper]]:
    return {"tract": TrAct}
