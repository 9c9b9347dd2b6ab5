"""Gradients of single samples: layer by layer from one backward pass over a batch, or of any parameters."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ModelError
from .batch import Inputs, apply, forward, size
from .capture import evaluating
from .samples import Samples
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


def parameter_gradients(
    samples: Samples, params: Sequence[Tensor], chunk: int = 64
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The losses of at most ``chunk`` samples at a time, (b,), and their gradients, (b, *p.shape) of each p.

    Every sample draws its own dropout mask. Parameters that are not the model's, and models in which samples see each
    other, are a ``ModelError``.
    """
    apart(samples.model)
    weights = {name: p.detach() for name, p in _named(samples.model, params).items()}

    def loss(weights: dict[str, Tensor], inputs: Inputs, target: Tensor) -> Tensor:
        def call(*args: Any, **named: Any) -> Any:
            return functional_call(samples.model, weights, args, named)

        return samples.score(samples.outputs(apply(lambda x: x[None], inputs), call), target[None])

    each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")
    for inputs, targets in samples.batches:
        for first in range(0, len(targets), chunk):
            some = slice(first, first + chunk)
            with _mappable(samples, targets.device.type), mapped(samples.model):
                grads, losses = each(weights, apply(lambda x, some=some: x[some], inputs), targets[some])  # type: ignore[misc]  # some is bound at once
            yield losses.detach(), [g.detach() for g in grads.values()]


@contextmanager
def _mappable(samples: Samples, device: str) -> Iterator[None]:
    """Attention by its plain formula, which maps over samples; torch cannot do so under autocast, and takes turns."""
    with samples.autocast():
        narrow = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    with warnings.catch_warnings(), nullcontext() if narrow else sdpa_kernel(SDPBackend.MATH):
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


@contextmanager
def mapped(model: nn.Module) -> Iterator[None]:
    """What cannot be mapped over samples is an error of the model: transformers looks whether a mask hides anything."""
    try:
        yield
    except RuntimeError as error:
        if "data-dependent control flow" not in str(error):
            raise
        why = "its forward decides by the values of a tensor, a mask perhaps"
        raise ModelError(f"{type(model).__name__} has no gradients of single samples: {why}") from error


def apart(model: nn.Module) -> None:
    """Refuse a model whose samples see each other: through the statistics of their batch."""
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and (layer.training or not layer.track_running_stats):
            raise ModelError(
                f"{name} is a {type(layer).__name__}: through it the samples of a batch see each other and have no "
                "gradients of their own; use a model with group or layer normalization"
            )


def reads(layer: Any, x: Tensor) -> Tensor:
    """What a linear layer or 2-D convolution reads at each of its positions: its input -> (B, T, I).

    T is the pixels that it writes, the sequence, or 1; I is ordered as the weight behind its first axis.
    """
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(len(x), -1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    read = F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)  # (B, C·kh·kw, T)
    return read.transpose(1, 2)


def _named(model: nn.Module, params: Sequence[Tensor]) -> dict[str, Tensor]:
    """``params`` in their order, each under one of its names in ``model``."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    for p in params:
        if p not in names:
            raise ModelError(f"only a model's own parameters have gradients here; one of shape {tuple(p.shape)} is not")
    return {names[p]: p for p in params}


def _positions(layer: Any, x: Tensor, g: Tensor) -> Pair:
    """x, g of one use -> (B, T, I), (B, T, O); T is the pixels, the sequence, or 1."""
    rows = g.flatten(2).transpose(1, 2) if isinstance(layer, nn.Conv2d) else g.reshape(len(g), -1, g.shape[-1])
    return reads(layer, x), rows
