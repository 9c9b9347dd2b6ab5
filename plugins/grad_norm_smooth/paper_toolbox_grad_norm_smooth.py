"""Newton steps damped by the norm of the gradient (Semenov et al., "Gradient-Normalized Smoothness …", 2025)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import ModelError
from paper_toolbox.kit.passes import repeatable
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.vector import joined, parted
from paper_toolbox.kit.whole import Whole, WholeOptimizer
from torch import Tensor
from torch.autograd import grad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True, kw_only=True)
class GradNormSmooth(Whole):
    """x ← x - (H + λI)⁻¹ g, λ = |g| / γ; γ doubles with a step taken and halves with one refused (Algorithm 1)."""

    closure = "samples"
    scheduled = True
    gamma: float = param(1.0, "γ of the first step: about its length", above=0, search=(1e-2, 1e2))
    hessian: Literal["ggn", "exact", "none"] = param("ggn", "H: Gauss-Newton, the Hessian, or 0 (normalized gradient)")
    cg_steps: int = param(50, "most products with H for one trial, by conjugate gradients", low=1)

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        x = joined(run.trained).requires_grad_()
        evaluate, gamma, trial = evaluation(run, closure), run.common.get("gamma", self.gamma), x
        z, value = evaluate(x, True)
        (g,) = grad(value, x, retain_graph=True, create_graph=self.hessian == "exact")
        product = curvature(self.hessian, z, value, x, g)
        fall = norm = float(g.norm())
        for _ in range(40 if norm > 0 else 0):
            lam = norm / (gamma + 1e-8)
            d = solved(product, lam, g, self.cg_steps)
            if d is not None:
                trial = (x + d).requires_grad_()
                after = evaluate(trial, False)[1]
                fall = (value - after).item()
                if fall >= float(grad(after, trial)[0].square().sum()) / (8 * lam):
                    gamma = max(2 * gamma, 1e-9)
                    break
            gamma /= 2
        run.common["gamma"] = gamma
        if fall >= 0:  # after forty refusals the last one's, too
            for p, new in zip(run.trained, parted(trial, run.trained), strict=True):
                p.copy_(new)
        return value.detach()


def evaluation(run: WholeOptimizer, samples: Samples) -> Callable[[Tensor, bool], tuple[Tensor, Tensor]]:
    """(x, moving) -> the outputs (n,) and the loss at x (P,), with one set of draws; ``moving`` moves buffers."""
    model, batches = samples.model, samples.batches
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    if strangers := [tuple(p.shape) for p in run.trained if p not in names]:
        raise ModelError(f"grad_norm_smooth trains a model's own parameters; one of shape {strangers[0]} is not")

    def forward(others: dict[str, Tensor]) -> list[Tensor]:
        with sdpa_kernel(SDPBackend.MATH):  # attention's fused kernels have no second derivative, its plain formula has
            return [samples.outputs(i, lambda *a, **b: functional_call(model, others, a, b)) for i, _ in batches]

    look = repeatable(forward, run.trained, None)

    @torch.enable_grad()
    def evaluate(x: Tensor, moving: bool) -> tuple[Tensor, Tensor]:
        others = {names[p]: w.to(p.dtype) for p, w in zip(run.trained, parted(x, run.trained), strict=True)}
        others |= {} if moving else {name: b.clone() for name, b in model.named_buffers()}
        outputs = look(others)
        z = joined(outputs)
        pairs = zip(parted(z, outputs), batches, strict=True)
        return z, torch.stack([samples.score(part, targets) for part, (_, targets) in pairs]).mean()

    return evaluate


@torch.enable_grad()
def curvature(kind: str, z: Tensor, value: Tensor, x: Tensor, g: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> H v at x, where the outputs are z, the loss is ``value`` and its gradient g."""
    if kind == "none":
        return torch.zeros_like
    if kind == "exact":
        return derivative(g, x)
    # equivalent: zeros_like → ones_like: Jᵀw is linear in w
    w = torch.zeros_like(z, requires_grad=True)
    forward = derivative(grad(z, x, w, create_graph=True)[0], w)  # v -> J v
    bent, back = derivative(grad(value, z, create_graph=True)[0], z), derivative(z, x)
    return lambda v: back(bent(forward(v)))


def derivative(y: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> ∂(y · v) / ∂x; a y that is constant has no graph."""
    return (lambda v: grad(y, x, v, retain_graph=True)[0]) if y.requires_grad else torch.zeros_like


def solved(product: Callable[[Tensor], Tensor], lam: float, g: Tensor, steps: int) -> Tensor | None:
    """-(H + λI)⁻¹ g by conjugate gradients; nothing where H + λI turns out not to be positive definite."""
    d, r = torch.zeros_like(g), -g
    p, size, goal = r, r @ r, 1e-12 * (g @ g)  # a residual of 1e-6 of the gradient's norm
    for _ in range(steps):
        image = product(p) + lam * p
        if not (curve := p @ image) > 0:
            return None
        d, r = d + size / curve * p, r - size / curve * image
        if (left := r @ r) <= goal:
            break
        p, size = r + left / size * p, left
    return d


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"grad_norm_smooth": GradNormSmooth}
