"""The gradient of one output with respect to the inputs; the model is left as it was."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import NeedError
from .batch import forward
from .capture import evaluating
from .surgery import find


def input_gradient(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """d score / d inputs, one sample at a time. inputs (B, ...) floating, targets (B,) int64 -> (B, ...)."""
    with differentiating(model, inputs) as point:
        scores = target_scores(forward(model, point.clone()), targets)  # the copy lets a first layer work in place
        return gradients(scores.sum(), [point])[0]


def input_gradients(model: nn.Module, copies: Iterable[Tensor], targets: Tensor, rows: int = 256) -> Iterator[Tensor]:
    """``input_gradient`` at each of ``copies`` (B, ...) of a batch; about ``rows`` rows at once."""
    waiting = iter(copies)
    while group := list(itertools.islice(waiting, max(1, rows // max(1, len(targets))))):
        yield from input_gradient(model, torch.cat(group), targets.repeat(len(group))).view(len(group), *group[0].shape)


def target_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """The output each target names. outputs (B, C), targets (B,) int64 -> (B,)."""
    if outputs.dim() != 2:
        raise NeedError(f"an attribution looks at outputs (B, C); this model's are {tuple(outputs.shape)}")
    if targets.dtype != torch.int64 or targets.shape != outputs.shape[:1]:
        found = f"{str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}"
        raise NeedError(f"targets must name one output per sample, int64 ({len(outputs)},); they are {found}")
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[1]:
        raise NeedError(f"targets must lie in 0…{outputs.shape[1] - 1}: the model has {outputs.shape[1]} outputs")
    return outputs.gather(1, targets[:, None].clone())[:, 0]  # a clone, lest autograd meets an inference tensor


def check_inputs(inputs: Any) -> None:
    """Refuse what has no attribution entry by entry: several inputs, or ids."""
    if not isinstance(inputs, Tensor):
        raise NeedError("an attribution needs a model with one input tensor; this one takes several")
    if not inputs.is_floating_point():
        kind = str(inputs.dtype).removeprefix("torch.")
        raise NeedError(f"an attribution needs floating inputs; these are {kind} (token ids have no neighbours)")


def check_images(inputs: Any) -> Tensor:
    """The inputs, if they are images (B, C, H, W)."""
    check_inputs(inputs)
    if inputs.dim() != 4:
        raise NeedError(f"this attribution draws maps of images (B, C, H, W); the inputs are {tuple(inputs.shape)}")
    return inputs  # type: ignore[no-any-return]  # checked to be a tensor


@contextmanager
def differentiating(model: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """A copy of ``inputs`` to differentiate by, ``model`` in evaluation mode; also under ``no_grad``."""
    check_inputs(inputs)
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        point = inputs.detach()
        yield (point.clone() if point.is_inference() else point).requires_grad_()


def gradients(score: Tensor, points: list[Tensor]) -> list[Tensor]:
    """d score / d points; zeros where the score does not depend on a point. No ``.grad`` is written."""
    if not score.requires_grad:
        return [torch.zeros_like(point) for point in points]
    found = torch.autograd.grad(score, points, allow_unused=True, materialize_grads=True)
    return [gradient.detach() for gradient in found]


def leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, layer) of the layers that hold no other layers; a parametrized one counts as one."""
    holds = ((path, layer, [name for name, _ in layer.named_children()]) for path, layer in find(model, nn.Module))
    return [(path, layer) for path, layer, names in holds if names in ([], ["parametrizations"])]


class Call(NamedTuple):
    """One call of one layer: its input, cut off from the graph, and its output in the graph."""

    path: str
    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def recording(layers: Iterable[tuple[str, nn.Module]]) -> Iterator[list[Call]]:
    """The calls of ``layers``, (path, layer) pairs, in order; one called twice is recorded twice.

    They are kept as they were before any operation in place; calls of other than one floating tensor are left out.
    """
    calls: list[Call] = []
    waiting: list[Tensor | None] = []

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        plain = len(args) == 1 and isinstance(args[0], Tensor) and args[0].is_floating_point()
        waiting.append(args[0].detach().clone() if plain else None)

    def watch(path: str, layer: nn.Module) -> list[Any]:
        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
            x = waiting.pop()
            if x is None or not isinstance(output, Tensor):
                return None
            calls.append(Call(path, layer, x, output))
            return output.clone()

        return [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]

    handles = [handle for path, layer in layers for handle in watch(path, layer)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def noisy(inputs: Tensor, noise_level: float, samples: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """``samples`` copies of the inputs plus Gaussian noise of σ = noise_level · (max - min) of each sample.

    The samples of a batch share their noise, so that a sample's map does not depend on its neighbours.
    """
    check_inputs(inputs)
    flat = inputs.detach().flatten(1)
    sigma = noise_level * (flat.amax(1) - flat.amin(1)).reshape(-1, *[1] * (inputs.dim() - 1))  # (B, 1, ...)
    device = inputs.device if generator is None else generator.device
    for _ in range(samples):
        noise = torch.randn(inputs.shape[1:], dtype=inputs.dtype, device=device, generator=generator)
        yield inputs.detach() + sigma * noise.to(inputs.device)
