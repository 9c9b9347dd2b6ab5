"""Derivatives carried along with a forward pass, without any backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import ModelError

fwd: Any = forward_ad  # untyped in torch


def prepare() -> None:
    """Make torch's first dual tensor, which warns of torch's own deprecated code, here rather than in a step."""
    with warnings.catch_warnings(), fwd.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        fwd.make_dual(torch.zeros(()), torch.zeros(()))


def derivative(
    model: nn.Module, params: Sequence[Tensor], tangents: Sequence[Tensor], loss: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """The loss and its derivative along ``tangents``, in one forward pass."""
    # attention's fused kernels have no forward derivative, its plain formula has
    with fwd.dual_level(), sdpa_kernel(SDPBackend.MATH):
        duals = {p: fwd.make_dual(p, v) for p, v in zip(params, tangents, strict=True)}
        try:
            with swapped(model, duals):
                value, slope = fwd.unpack_dual(loss())
        except NotImplementedError as error:
            op = str(error).partition("Trying to use forward AD with ")[2].split(" ")[0] or str(error).splitlines()[0]
            raise ModelError(f"{op} has no forward derivative; a model without it is needed") from error
        if slope is None:
            raise ModelError("the loss does not depend on the parameters being trained")
        return value.clone(), slope.clone()


@contextmanager
def swapped(model: nn.Module, others: dict[Tensor, Tensor]) -> Iterator[None]:
    """Inside, the model's parameters are the ``others`` that stand for them."""
    places: list[tuple[Any, str, Tensor]] = [
        (m._parameters, n, p) for m in model.modules() for n, p in m._parameters.items() if p is not None
    ]
    try:
        for owned, name, p in places:
            owned[name] = others.get(p, p)
        yield
    finally:
        for owned, name, p in places:
            owned[name] = p
