"""The upper bound of the loss that a block is moved on: ⟨g, d⟩ + ‖d‖² / 2 in L D, and λ ‖w + d‖₁."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from paper_toolbox.kit.precision import widen
from paper_toolbox.kit.whole import Place
from torch import Tensor

TRIES = 60  #: doublings of L in one step, after which nothing moves


def curvature(place: Place) -> Any:
    """L D: a number, or like p."""
    return place.state["L"] * place.state.get("diagonal", 1.0)


def move(place: Place, w: Tensor, bound: float | Tensor) -> Tensor:
    """The minimiser d, from ``w``; like it."""
    ahead, shrink = -widen(place.grad) / bound, place.at.l1 / bound
    if place.at.l1 == 0:
        return ahead
    far = widen(w) + ahead
    return far - far.clamp(-shrink, shrink) - w  # the soft threshold


def gain(place: Place, bound: float | Tensor) -> Tensor:
    """What the move promises, entry by entry; like p."""
    g, d, w = widen(place.grad), move(place, place.p, bound), widen(place.p)
    l1: float = place.at.l1
    return -(g * d + bound * d**2 / 2 + l1 * ((w + d).abs() - w.abs()))


def descend(block: list[tuple[Place, Tensor]], fits: Callable[[Tensor], bool]) -> None:
    """Move the block; double L while the loss rises above the bound, whose smooth part ``fits`` is shown."""
    before, taken = [(place.p.clone(), place.state["L"]) for place, _ in block], False
    try:
        for _ in range(TRIES if block else 0):
            taken = fits(moved(block, [w for w, _ in before]))
            if taken:
                break
            for place, _ in block:
                place.state["L"] *= 2
    finally:
        for (place, _), (w, bound) in [] if taken else zip(block, before, strict=True):
            place.p.copy_(w)
            place.state["L"] = bound


def moved(block: list[tuple[Place, Tensor]], before: list[Tensor]) -> Tensor:
    """Move the block from ``before``; how much the bound rises by, ()."""
    rises = []
    for (place, mask), w in zip(block, before, strict=True):
        bound = curvature(place)
        place.p.copy_(w + torch.where(mask, move(place, w, bound), 0))
        d = widen(place.p) - w  # what rounding left of it
        rises.append((widen(place.grad) * d + bound * d**2 / 2).sum())
    return torch.stack([rise.to(rises[0].device) for rise in rises]).sum()
