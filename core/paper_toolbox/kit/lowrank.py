"""Layers of low rank: a linear layer or a convolution as two smaller ones, and the matrices behind them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import surgery

Scheme = Literal["nc", "vh"]


class LowRankLinear(nn.Sequential):
    """``up(down(x))``: (..., in_features) -> (..., rank) -> (..., out_features)."""

    def __init__(self, in_features: int, rank: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    # Read from the children, which pruning may have changed.
    in_features = property(lambda self: self.down.in_features)
    rank = property(lambda self: self.down.out_features)
    out_features = property(lambda self: self.up.out_features)
    bias = property(lambda self: self.up.bias)

    @property
    def weight(self) -> Tensor:
        """The dense weight (O, I), for callers that read a linear layer's weight; a product, not a parameter."""
        return self.up.weight @ self.down.weight


class LowRankConv2d(nn.Sequential):
    """A convolution of ``rank`` channels between two.

    ``nc``: (rank, C, kh, kw), then (N, rank, 1, 1). ``vh``: (rank, C, kh, 1), then (N, rank, 1, kw).
    """

    def __init__(
        self,
        in_channels: int,
        rank: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: str | tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        scheme: Scheme = "nc",
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = tuple(kernel_size), tuple(stride), tuple(dilation)
        self.padding = padding if isinstance(padding, str) else tuple(padding)
        self.padding_mode, self.scheme = padding_mode, scheme
        first, second = self._halves()
        self.first = nn.Conv2d(in_channels, rank, bias=False, padding_mode=padding_mode, **first)
        self.second = nn.Conv2d(rank, out_channels, bias=bias, padding_mode=padding_mode, **second)

    in_channels = property(lambda self: self.first.in_channels)
    rank = property(lambda self: self.first.out_channels)
    out_channels = property(lambda self: self.second.out_channels)
    bias = property(lambda self: self.second.bias)

    def _halves(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Geometry of the two convolutions."""
        (kh, kw), (sh, sw), (dh, dw), pad = self.kernel_size, self.stride, self.dilation, self.padding
        if self.scheme == "nc":
            first = {"kernel_size": (kh, kw), "stride": (sh, sw), "padding": pad, "dilation": (dh, dw)}
            return first, {"kernel_size": 1}
        down, across = (pad, pad) if isinstance(pad, str) else ((pad[0], 0), (0, pad[1]))
        first = {"kernel_size": (kh, 1), "stride": (sh, 1), "padding": down, "dilation": (dh, 1)}
        return first, {"kernel_size": (1, kw), "stride": (1, sw), "padding": across, "dilation": (1, dw)}


def layers(model: nn.Module, skip: Collection[str] = (), convolutions: bool = True) -> list[tuple[str, Any]]:
    """(path, layer) of each dense linear layer and ungrouped 2-D convolution.

    ``skip`` holds parts of paths; the word ``classifier`` stands for the last linear layer. Subclasses are left out:
    they may be used in ways that a pair of layers cannot serve.
    """
    linear = [m for _, m in surgery.find(model, nn.Linear)]
    last = linear[-1] if linear and "classifier" in skip else None
    kinds = (nn.Linear, nn.Conv2d) if convolutions else (nn.Linear,)
    return [
        (path, layer)
        for path, layer in surgery.find(model, kinds)
        if path
        and parametrize.type_before_parametrizations(layer) in kinds
        and layer is not last
        and getattr(layer, "groups", 1) == 1
        if not any(word in path for word in skip if word != "classifier")
    ]


def matrix(weight: Tensor, scheme: Scheme = "nc") -> Tensor:
    """The matrix of a weight: linear (O, I); ``nc`` (N, C·kh·kw); ``vh`` (C·kh, N·kw)."""
    if weight.ndim == 4 and scheme == "vh":
        n, c, kh, kw = weight.shape
        return weight.permute(1, 2, 0, 3).reshape(c * kh, n * kw)
    return weight.flatten(1)


def unmatrix(m: Tensor, shape: torch.Size, scheme: Scheme = "nc") -> Tensor:
    """The weight of ``shape`` whose ``matrix`` is ``m``."""
    if len(shape) == 4 and scheme == "vh":
        n, c, kh, kw = shape
        return m.reshape(c, kh, n, kw).permute(2, 0, 1, 3)
    return m.reshape(shape)


def pays(rank: int, rows: int, columns: int) -> bool:
    """Whether two factors of ``rank`` hold fewer entries than the matrix."""
    return 0 < rank * (rows + columns) < rows * columns


@torch.no_grad()
def factorized(layer: nn.Linear | nn.Conv2d, left: Tensor, right: Tensor, scheme: Scheme = "nc") -> nn.Module:
    """The low-rank layer whose ``matrix`` is ``left`` (R, rank) @ ``right`` (rank, K)."""
    rank, bias = left.shape[1], layer.bias is not None
    new: nn.Module
    if isinstance(layer, nn.Linear):
        new = LowRankLinear(layer.in_features, rank, layer.out_features, bias)
    else:
        geometry: Any = (
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            bias,
            layer.padding_mode,
            scheme,
        )
        new = LowRankConv2d(layer.in_channels, rank, layer.out_channels, *geometry)
    first, second = (part for part in new.children() if isinstance(part, nn.Linear | nn.Conv2d))
    if isinstance(layer, nn.Conv2d) and scheme == "vh":  # (C·kh, k) -> (k, C, kh, 1); (k, N·kw) -> (N, k, 1, kw)
        left, right = right.reshape(rank, layer.out_channels, -1).transpose(0, 1), left.T
    new.to(layer.weight.device, layer.weight.dtype)
    first.weight.copy_(right.reshape(first.weight.shape))
    second.weight.copy_(left.reshape(second.weight.shape))
    if layer.bias is not None:
        second.bias.copy_(layer.bias)  # type: ignore[union-attr]  # made with a bias above
    return new
