"""Norm Loss: draw the weight vector of every unit to length one.

Georgiou et al., "Norm Loss: An efficient yet effective regularization method for deep neural networks", 2021,
arXiv:2103.06583.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from paper_toolbox import Loss, hookimpl, param
from paper_toolbox.errors import NothingChanged
from paper_toolbox.kit import surgery
from paper_toolbox.kit.capture import evaluating
from paper_toolbox.kit.precision import widen
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, *TRANSPOSED)
WEIGHTS = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # the last four: attention


@dataclass(frozen=True, kw_only=True)
class NormLoss(Loss):
    """λ Σ (1 - |w|)² over the units of linear and convolution layers; it stands in for weight decay."""

    traits = ("above_zero", "no_forward", "pulls_length")
    role: ClassVar[Literal["criterion", "penalty"]] = "penalty"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression", "tokens")

    lam: float = param(0.01, "weight of the penalty", low=0, search=(1e-4, 0.1))
    eps: float = param(1e-8, "a shorter weight vector counts as this long and gets no gradient", low=0)

    def __call__(self, logits: Tensor, targets: Tensor, *, model: nn.Module) -> Tensor:
        """A scalar of the weights alone: neither logits nor targets are looked at."""
        units = {id(w): rows for layer in layers(model) for w, rows in weights_of(layer)}  # a tied weight counts once
        lengths = torch.cat([length(widen(rows), self.eps) for rows in units.values()])
        return self.lam * (1 - lengths).square().sum()


def length(rows: Tensor, eps: float) -> Tensor:
    """The length of each row, at least ``eps``, (O, I) -> (O,); no gradient where it is no more."""
    lengths: Tensor = Lengths.apply(rows, eps)  # type: ignore[no-untyped-call]  # torch's own signature
    return lengths


class Lengths(torch.autograd.Function):
    """``length`` whose way back is one product, where that of torch's norm passes over the weight several times."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, eps: float) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
        ctx.save_for_backward(rows, lengths)
        ctx.eps = eps
        return lengths.clamp_min(eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, lengths = ctx.saved_tensors
        return rows * torch.where(lengths > ctx.eps, grad / lengths, 0)[:, None], None


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose weights are meant; embeddings and the gains of norms are not."""
    found = [layer for _, layer in surgery.find(model, LAYERS)]
    if not found:
        raise NothingChanged("norm_loss found 0 weights: it looks for linear, convolution and attention layers")
    return found


def weights_of(layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Each weight that ``layer`` computes with, and its view (units, inputs of a unit).

    Of a parametrized weight it is the outcome that counts; its buffers are not advanced (a power iteration, say).
    """
    for name in WEIGHTS:
        if is_parametrized(layer, name):
            with evaluating(layer.get_submodule(f"parametrizations.{name}")):
                w = getattr(layer, name)
        else:
            w = getattr(layer, name, None)
        if isinstance(w, Tensor):
            yield w, (by_unit(w, layer.groups) if isinstance(layer, TRANSPOSED) else w).flatten(1)


def by_unit(w: Tensor, groups: int) -> Tensor:
    """The weight of a transposed convolution, (I, O / groups, *K) -> (O, I / groups, *K)."""
    return w.reshape(groups, -1, *w.shape[1:]).transpose(1, 2).flatten(0, 1)


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"norm_loss": NormLoss}
