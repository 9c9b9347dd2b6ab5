"""EGN: exact Gauss-Newton steps, by a system as small as a batch's outputs (Korbit et al., 2024, arXiv:2405.14402)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from paper_toolbox import hookimpl, param
from paper_toolbox.errors import ModelError, NeedError
from paper_toolbox.kit import batch, forward, persample
from paper_toolbox.kit.passes import repeatable
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.vector import joined, parted
from paper_toolbox.kit.whole import Whole, WholeOptimizer
from torch import Tensor
from torch.func import grad, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True, kw_only=True)
class EGN(Whole):
    """d = -(JᵀQJ + λI)⁻¹ Jᵀr of the batch's mean loss, r and Q its derivatives by the outputs (Algorithm 1)."""

    traits = ("apart", "jacobian", "mapped")
    closure = "samples"
    lr: float = param(1.0, "step size α; with line_search the largest one", low=0, search=(1e-3, 1.0))
    lam: float = param(1.0, "damping λ of the Gauss-Newton matrix", above=0, search=(1e-3, 1e3))
    momentum: float = param(0.0, "decay of the running mean of the directions", low=0, below=1)
    line_search: bool = param(False, "shorten the step until the batch's loss falls enough (Armijo)")
    adaptive: bool = param(False, "raise λ where the quadratic model predicts the loss badly, lower it where well")
    memory: float = param(4.0, "GiB that J and Q of a batch may take", above=0)

    def step(self, run: WholeOptimizer, closure: Samples) -> Tensor:
        r, q, jacobian, loss = linearized(run.trained, closure, self.memory)
        places, damping = run.tensors(parted(r @ jacobian, run.trained)), run.common.get("damping", 1.0)
        lam = torch.cat([r.new_full((place.p.numel(),), damping * place.at.lam) for place in places])
        d = direction(r, q, jacobian, lam)
        steps, before = parted(d, run.trained), [place.p.clone() for place in places]
        look = repeatable(closure, run.trained, run.model)
        for place, x in zip(places, steps, strict=True):
            if b := place.at.momentum:
                v = place.state.setdefault("v", torch.zeros_like(x)).lerp_(x, 1 - b)
                x.copy_(v / (1 - b ** place.state["step"]))
            x.mul_(place.at.lr)

        def move(share: float) -> Tensor:
            for place, old, x in zip(places, before, steps, strict=True):
                place.p.copy_(old + share * x)
            return look() if self.line_search or self.adaptive else loss

        start, seen = move(0.0), jacobian @ d
        share = armijo(run, move, start, r @ seen) if self.line_search else 1.0
        promised = share * (r @ seen) + share**2 * (seen @ q @ seen) / 2
        ratio = (move(share) - start) / promised  # NaN where nothing moved: λ stays
        if self.adaptive:
            run.common["damping"] = max(1e-8, damping * (1.01 if ratio < 0.25 else 0.99 if ratio > 0.75 else 1.0))
        return loss


def armijo(run: WholeOptimizer, move: Callable[[float], Tensor], start: Tensor, slope: Tensor) -> float:
    """The share of the step after which the loss fell by a tenth of what its slope promises."""
    share: float = min(1.0, 1.5 * run.common.get("share", torch.inf))
    for _ in range(15):
        if move(share) <= start + 0.1 * share * slope:
            break
        share *= 0.8
    run.common["share"] = share
    return share


def linearized(trained: list[Tensor], samples: Samples, memory: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """r (n,), Q (n, n), J (n, P) and the mean loss; n: the outputs of all samples of all batches."""
    jacobians, outputs = zip(*[jacobian_of(trained, samples, x, memory) for x, _ in samples.batches], strict=True)

    def loss(z: Tensor) -> Tensor:
        pairs = zip(parted(z, outputs), samples.batches, strict=True)
        return torch.stack([samples.score(part, targets) for part, (_, targets) in pairs]).mean()

    z = joined(outputs)
    return grad(loss)(z), jacrev(grad(loss))(z), torch.cat(jacobians), loss(z)


def jacobian_of(trained: list[Tensor], samples: Samples, x: batch.Inputs, memory: float) -> tuple[Tensor, Tensor]:
    """The derivatives of each sample's outputs by the parameters, (b c, P), and the outputs, (b, ...)."""
    persample.apart(samples.model)
    if strangers := [tuple(p.shape) for p in trained if p not in set(samples.model.parameters())]:
        raise ModelError(f"egn trains a model's own parameters; one of shape {strangers[0]} is not the model's")

    def one(flat: Tensor, x: batch.Inputs) -> tuple[Tensor, Tensor]:
        weights = {p: w.to(p.dtype) for p, w in zip(trained, parted(flat, trained), strict=True)}
        with forward.swapped(samples.model, weights):
            z = samples.outputs(batch.apply(lambda t: t[None], x))
        n = z.numel() * sum(batch.size(given) for given, _ in samples.batches)
        if (gib := n * (flat.numel() + n) * flat.element_size() / 2**30) > memory:
            raise NeedError(f"egn: J and Q take {gib:.3g} GiB, memory = {memory:g}: {memory / gib:.0%} of it fits")
        return z.flatten(), z[0]

    flat = joined(trained)
    with sdpa_kernel(SDPBackend.MATH), persample.mapped(samples.model):  # fused attention has no rule for it
        jacobian, outputs = vmap(jacrev(one, has_aux=True), (None, 0), randomness="different")(flat, x)
    return jacobian.flatten(0, 1), outputs


def direction(r: Tensor, q: Tensor, jacobian: Tensor, lam: Tensor) -> Tensor:
    """-(JᵀQJ + Λ)⁻¹ Jᵀr (P,), Λ = diag(lam): by Duncan and Guttman's identity where that system is the smaller one."""
    # equivalent: > → <: both systems give one direction
    if len(jacobian) > len(lam):
        d: Tensor = torch.linalg.solve(jacobian.T @ (q @ jacobian) + lam.diag(), r @ jacobian)
    else:
        d = torch.linalg.solve(q @ (jacobian / lam @ jacobian.T) + torch.eye(len(r)).to(r), r) @ jacobian / lam
    return -d


@hookimpl
def optimizer() -> dict[str, type[Whole]]:
    return {"egn": EGN}
