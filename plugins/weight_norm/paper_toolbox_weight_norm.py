"""Weight normalization: learn length and direction of each weight apart (Salimans & Kingma, 2016, arXiv:1602.07868)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from paper_toolbox import Normalizer, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import batch, capture, surgery, weights
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class WeightNorm(Normalizer):
    """Parametrizes the weight of every linear and convolutional layer as g v / ‖v‖, one g per output unit."""

    traits = ("splits", "weight_scale")
    data_init: bool = param(True, "with batches: redraw v, set g and b from the first one; off for a trained model")
    init_std: float = param(0.05, "standard deviation of the redrawn v", above=0)
    mean_only_bn: bool = param(False, "subtract the batch mean of what each layer gives")

    def apply(self, model: nn.Module, *, batches: Iterable[Any] | None = None) -> nn.Module:
        """Without ``batches`` the function stays as it was: v = w, g = ‖w‖. Tied weights are left as they are."""
        changed = weights.attach(model, Polar, lambda layer: Polar(weights.output_axis(layer)))
        if not changed:
            raise NothingChanged(
                "weight_norm found 0 layers: it looks for linear and convolutional ones that do not have it yet"
            )
        measured: set[nn.Module] = set()
        if self.data_init and batches is not None:
            measured = initialise(model, [layer for _, layer in changed], next(iter(batches))[0], self.init_std)
        for path, layer in changed if self.mean_only_bn else ():
            surgery.insert(model, path, MeanOnlyBatchNorm.behind(layer, layer in measured))
        return model


class Polar(nn.Module):
    """g, v -> g v / ‖v‖, the norm over all but ``axis``; g has length 1 on the other axes."""

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / self._norm(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self._norm(weight), weight

    def _norm(self, v: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(v, dim=[d for d in range(v.ndim) if d != self.axis], keepdim=True)
        return norm.clamp_min(1e-12)  # a unit of zeros stays one


class MeanOnlyBatchNorm(nn.Module):
    """t -> t - the mean of each unit over the batch + bias; in evaluation the running mean."""

    running_mean: Tensor

    def __init__(self, num_features: int, axis: int = -1, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features, self.axis, self.momentum = num_features, axis, momentum
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))

    def forward(self, t: Tensor) -> Tensor:
        mean = self.running_mean
        if self.training:
            mean = weights.per_unit(t, self.axis).mean(1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), self.momentum)
        return t + (self.bias - mean).view(-1, *(1,) * (-1 - self.axis))

    @classmethod
    @torch.no_grad()
    def behind(cls, layer: Any, measured: bool) -> MeanOnlyBatchNorm:
        """Takes over the bias of ``layer``, which is left 0: a measured one is minus the mean, another is a shift."""
        axis = weights.unit_axis(layer)
        made = cls(layer.out_features if axis == -1 else layer.out_channels, axis)
        if layer.bias is not None:
            made.to(layer.bias.device, layer.bias.dtype)
            (made.running_mean if measured else made.bias).copy_(-layer.bias if measured else layer.bias)
            layer.bias.zero_()
        return made


def initialise(model: nn.Module, layers: list[Any], inputs: batch.Inputs, std: float) -> set[nn.Module]:
    """Each unit gets mean 0 and variance 1 on ``inputs``, layer by layer in the order of use; the layers used."""
    used: set[nn.Module] = set()

    def draw(layer: nn.Module, x: Tensor) -> None:
        if layer not in used:
            used.add(layer)
            measure(layer, x, std)

    fit = [m for m in layers if not (weights.output_axis(m) and m.groups > 1)]  # transposed groups share their g
    with capture.watch_inputs(fit, draw), capture.evaluating(model), torch.no_grad():
        batch.forward(model, inputs)
    return used


def measure(layer: Any, x: Tensor, std: float) -> None:
    """Draw v, then g = 1 / std[t] and b = -mean[t] / std[t] for t = v x / ‖v‖."""
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    nn.init.normal_(v, 0, std)
    nn.init.ones_(g)
    t = weights.per_unit(layer.forward(x), weights.unit_axis(layer))
    t = t if layer.bias is None else t - layer.bias[:, None]
    var, mean = torch.var_mean(t, dim=1, correction=0)
    scale = torch.where(var > 1e-12, 1 / (var.sqrt() + 1e-10), 1.0)  # one sample has no spread: g stays 1
    g.copy_(scale.view_as(g))
    if layer.bias is not None:
        layer.bias.copy_(-mean * scale)


@hookimpl
def normalizer() -> dict[str, type[Normalizer]]:
    return {"weight_norm": WeightNorm}
