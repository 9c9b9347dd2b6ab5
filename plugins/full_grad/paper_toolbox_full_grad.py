"""FullGrad: the gradient of the input and of every bias together make up the output (Srinivas, 2019, arXiv:1905.00780)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from paper_toolbox import Attributor, hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit import surgery
from paper_toolbox.kit.batch import forward
from paper_toolbox.kit.gradient import differentiating, gradients, noisy, recording, target_scores
from torch import Tensor, nn

AFFINE = (nn.Linear, nn.modules.conv._ConvNd)
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
UNBIASED = (*HOMOGENEOUS, nn.Flatten, nn.Identity, nn.modules.dropout._DropoutNd)


class Term(NamedTuple):
    """One call of one layer: its bias b and the gradient g at its output; ψ = g ⊙ b."""

    path: str
    gradient: Tensor
    bias: Tensor

    @property
    def psi(self) -> Tensor:
        return self.gradient * self.bias


@dataclass(frozen=True, kw_only=True)
class FullGrad(Attributor):
    """Σ_c post(∇_x f ⊙ x) + Σ_l Σ_c upsample(post(ψ_l)), l over the layers with image-like outputs (eq. 5)."""

    def attribute(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """inputs (B, C, H, W), targets (B,) -> maps (B, 1, H, W), each ≥ 0."""
        gradient, terms = decompose(model, _images(inputs), targets)
        return aggregate([gradient * inputs, *(term.psi for term in terms)])


@dataclass(frozen=True, kw_only=True)
class SimpleFullGrad(Attributor):
    """FullGrad with the layers' gradients g_l in the place of ψ_l = g_l ⊙ b_l (the authors' released variant)."""

    def attribute(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """inputs (B, C, H, W), targets (B,) -> maps (B, 1, H, W), each ≥ 0."""
        gradient, terms = decompose(model, _images(inputs), targets)
        return aggregate([gradient * inputs, *(term.gradient for term in terms)])


@dataclass(frozen=True, kw_only=True)
class SmoothFullGrad(Attributor):
    """FullGrad of the components' means over noisy inputs (the authors' released variant)."""

    samples: int = param(25, "noisy copies", low=1)
    noise_level: float = param(0.15, "σ of the noise as a share of the sample's range", low=0)

    def attribute(
        self, model: nn.Module, inputs: Tensor, targets: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """inputs (B, C, H, W), targets (B,) -> maps (B, 1, H, W), each ≥ 0."""
        sums: list[Tensor] = []
        for x in noisy(_images(inputs), self.noise_level, self.samples, generator):
            gradient, terms = decompose(model, x, targets)
            parts = [(gradient * x).sum(1, keepdim=True), *(term.psi for term in terms)]
            sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
        return aggregate([s / self.samples for s in sums])


def decompose(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, list[Term]]:
    """∇_x f and every bias with its gradient, in the order of execution: f(x) = <∇_x f, x> + Σ_l Σ ψ_l (prop. 1).

    A layer called twice has two terms. The bias of a layer that is not affine is its implicit one, s(z) - s'(z) z.
    Non-linear functions called outside a layer are seen only if homogeneous, as ReLU and max pooling are.
    """
    layers = [(path, layer) for path, layer in surgery.find(model, nn.Module) if _may_have_bias(layer)]
    with differentiating(model, inputs) as point, recording(layers) as calls:
        score = target_scores(forward(model, point.clone()), targets).sum()
        found = gradients(score, [point, *(call.output for call in calls)])
        terms = [Term(c.path, g, bias(c.layer, c.input)) for c, g in zip(calls, found[1:], strict=True)]
    return found[0], terms


@torch.no_grad()
def bias(layer: nn.Module, x: Tensor) -> Tensor:
    """What ``layer`` adds to its linear part at x: layer(x) - J x, broadcastable to the output."""
    if isinstance(layer, AFFINE) or (isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None):
        return layer.forward(torch.zeros_like(x[:1]))  # β - γ μ / sqrt(σ² + ε) for BatchNorm
    output, slope = torch.func.jvp(layer.forward, (x,), (x.clone(),))
    return output - slope


def aggregate(parts: list[Tensor]) -> Tensor:
    """Sum of the rescaled parts that are images, enlarged to the first one's size. (B, C_l, H_l, W_l) -> (B, 1, H, W)."""
    maps = [rescale(part) for part in parts if part.dim() == 4]
    size = maps[0].shape[2:]
    return sum(F.interpolate(m, size, mode="bilinear", align_corners=True).sum(1, keepdim=True) for m in maps)


def rescale(part: Tensor, eps: float = 1e-6) -> Tensor:
    """|A| minus its least entry, over its largest plus ε; per sample, over channels and space."""
    part = part.abs()
    part = part - part.amin((1, 2, 3), keepdim=True)
    return part / (part.amax((1, 2, 3), keepdim=True) + eps)


def _may_have_bias(layer: nn.Module) -> bool:
    """Leaves (a parametrized layer is one) that are not homogeneous."""
    leaf = all(name == "parametrizations" for name, _ in layer.named_children())
    return leaf and not isinstance(layer, UNBIASED) and not (isinstance(layer, AFFINE) and layer.bias is None)


def _images(inputs: Tensor) -> Tensor:
    if not (isinstance(inputs, Tensor) and inputs.dim() == 4):
        raise NeedError("full_grad draws maps of images (B, C, H, W); for other inputs use integrated_gradients")
    return inputs


@hookimpl
def attributor() -> dict[str, type[Attributor]]:
    return {"full_grad": FullGrad, "simple_full_grad": SimpleFullGrad, "smooth_full_grad": SmoothFullGrad}
