"""Gradients of single samples from one backward pass over a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batch import Inputs, forward, size
from .capture import evaluating
from .undo import differentiable

Pair = tuple[Tensor, Tensor]


def sample_gradients(
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Inputs,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[nn.Module, Pair]:
    """What each linear layer or 2-D convolution reads, x (B, T, I), and the gradients of what it writes, g (B, T, O).

    The gradient of sample b's own loss with respect to the weight (O, I) is ``g[b].T @ x[b]``; T counts positions,
    and repeated uses of a layer. ``loss`` is a mean over samples that do not see each other; a layer the loss does
    not depend on is left out. The model runs in evaluation mode, and its ``grad`` fields stay as they are.
    """
    uses: list[tuple[nn.Module, Tensor, Tensor]] = []

    def see(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        uses.append((layer, args[0].detach(), out))
        return out.clone()  # what follows may write into its input

    with evaluating(model), differentiable(model), torch.enable_grad():
        handles = [layer.register_forward_hook(see) for layer in layers]
        try:
            value = loss(forward(model, inputs), targets)
        finally:
            for handle in handles:
                handle.remove()
        grads = torch.autograd.grad(value, [out for *_, out in uses], allow_unused=True)
    pairs: dict[nn.Module, list[Pair]] = defaultdict(list)
    for (layer, x, _), g in zip(uses, grads, strict=True):
        if g is not None:
            pairs[layer].append(_positions(layer, x, g * size(inputs)))
    return {layer: (torch.cat([x for x, _ in p], 1), torch.cat([g for _, g in p], 1)) for layer, p in pairs.items()}


def _positions(layer: Any, x: Tensor, g: Tensor) -> Pair:
    """x, g of one use -> (B, T, I), (B, T, O); T is the pixels, the sequence, or 1."""
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(len(x), -1, x.shape[-1]), g.reshape(len(g), -1, g.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    read = F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)  # (B, C·kh·kw, T)
    return read.transpose(1, 2), g.flatten(2).transpose(1, 2)
