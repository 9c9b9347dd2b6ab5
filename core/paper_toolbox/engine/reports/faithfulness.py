"""Does a map say what the model does? Figures that need no ground truth."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ...kit.batch import forward
from ...kit.capture import evaluating
from ...kit.gradient import check_inputs, target_scores
from ...kit.stats import rank_correlation

Attribute = Callable[[nn.Module, Tensor, Tensor], Tensor]
Score = Literal["probability", "output"]
ROWS, POINTS = 256, 51  # images at once; points of a removal curve


def faithfulness(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    attributions: Tensor,
    *,
    attribute: Attribute,
    generator: torch.Generator,
    score: Score = "probability",
) -> dict[str, float]:
    """Every figure of this module, mean over the batch; ``attribute`` must repeat itself on the same arguments.

    inputs (B, ...); targets (B,) int64; attributions like the inputs, or with one channel. Removed means 0, the mean
    of standardised data. ``score``: what removal is watched in; a regression is watched in its output.
    """
    check_inputs(inputs)
    with torch.no_grad(), evaluating(model):
        deletion, insertion = removal_curves(model, inputs, targets, attributions, score)
        return {
            "deletion_auc": area(deletion),
            "insertion_auc": area(insertion),
            "infidelity": infidelity(model, inputs, targets, attributions, generator),
            "sensitivity_max": sensitivity_max(model, inputs, targets, attributions, attribute, generator),
            "randomised_last": randomised(model, inputs, targets, attributions, attribute, generator, "last"),
            "randomised_all": randomised(model, inputs, targets, attributions, attribute, generator, "all"),
        }


def removal_curves(
    model: nn.Module, inputs: Tensor, targets: Tensor, attributions: Tensor, score: Score = "probability"
) -> tuple[Tensor, Tensor]:
    """Scores (P, B) while the entries of the map, highest first, are deleted from x, or inserted into 0.

    Petsiuk et al., 2018 (RISE), arXiv:1806.07421. An entry of a one-channel map is the whole pixel.
    """
    flat = attributions.flatten(1)
    place = flat.argsort(dim=1, descending=True, stable=True).argsort(1)  # (B, E): 0 is the most important
    counts = torch.linspace(0, flat.shape[1], min(POINTS, flat.shape[1] + 1), device=inputs.device).round()
    gone = (place[None] < counts[:, None, None]).view(len(counts), *attributions.shape)  # (P, B, ...)
    return _scores(model, inputs, ~gone, targets, score), _scores(model, inputs, gone, targets, score)


def area(curve: Tensor) -> float:
    """Mean over the batch of the area under curves (P, B) on [0, 1], by trapezoids."""
    return float(torch.trapezoid(curve, dx=1 / (len(curve) - 1), dim=0).mean())


def infidelity(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    attributions: Tensor,
    generator: torch.Generator,
    samples: int = 64,
) -> float:
    """Mean square of β Φ(removed) - (f(x) - f(x without removed)) over random removals; 0 is perfect.

    Yeh et al., 2019, arXiv:1901.09392, definition 2.1, with their removal of random subsets to a baseline, in the
    model's raw output. Φ(removed) sums the map over what is removed: a map of contributions. β, best for each
    sample, makes the figure independent of the map's scale, as in the authors' code.
    """
    shape, device = (samples, 1, *attributions.shape[1:]), generator.device
    share = torch.rand((samples, *[1] * inputs.dim()), generator=generator, device=device)
    removed = (torch.rand(shape, generator=generator, device=device) < share).to(inputs.device)  # (S, 1, ...)
    claimed = (removed * attributions).flatten(2).sum(2)  # (S, B)
    whole = _scores(model, inputs, torch.ones_like(removed[:1]), targets, "output")
    happened = whole - _scores(model, inputs, ~removed, targets, "output")
    energy = claimed.square().mean(0)
    beta = torch.where(energy > 0, (claimed * happened).mean(0) / energy, 0)
    return float((beta * claimed - happened).square().mean())


def sensitivity_max(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    attributions: Tensor,
    attribute: Attribute,
    generator: torch.Generator,
    radius: float = 0.02,
    samples: int = 10,
) -> float:
    """Largest |Φ(x + δ) - Φ(x)| / |Φ(x)| over random |δ|∞ ≤ radius, mean over the batch. Yeh et al., 2019, sec. 4."""
    norm = attributions.flatten(1).norm(dim=1).clamp(min=torch.finfo(attributions.dtype).tiny)
    worst = torch.zeros_like(norm)
    for _ in range(samples):
        noise = torch.rand(inputs.shape, generator=generator, device=generator.device).to(inputs)
        there = attribute(model, inputs + radius * (2 * noise - 1), targets)
        worst = worst.maximum((there - attributions).flatten(1).norm(dim=1) / norm)
    return float(worst.mean())


def randomised(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    attributions: Tensor,
    attribute: Attribute,
    generator: torch.Generator,
    layers: Literal["last", "all"],
) -> float:
    """Spearman's rank correlation of |map| with that of the model whose last, or every, weight is drawn anew.

    Adebayo et al., 2018, arXiv:1810.03292: a map that stays alike does not show what the model learned.
    Differs: a weight is drawn from a normal of its own mean and spread, which suits layers of any kind.
    """
    other = copy.deepcopy(model)
    weights = [p for p in other.parameters() if p.dim() > 1 and p.is_floating_point()]
    for weight in weights[-1:] if layers == "last" else weights:
        drawn = torch.randn(weight.shape, generator=generator, device=generator.device).to(weight)
        weight.data = weight.mean() + weight.std() * drawn
    found = attribute(other, inputs, targets)
    return float(rank_correlation(attributions.abs(), found.abs()).mean())


@torch.no_grad()
def _scores(model: nn.Module, inputs: Tensor, kept: Tensor, targets: Tensor, score: Score) -> Tensor:
    """Scores of the targets (K, B) for inputs (B, ...) times each of kept (K, B or 1, ...); a few rows at once."""
    found = []
    for chunk in torch.split(kept, max(1, ROWS // len(inputs))):
        outputs = forward(model, (inputs * chunk).flatten(0, 1))
        one = outputs.shape[-1] == 1  # a single output has no probability
        values = outputs if score == "output" or one else outputs.softmax(-1)
        found.append(target_scores(values, targets.repeat(len(chunk))).view(len(chunk), -1))
    return torch.cat(found)
