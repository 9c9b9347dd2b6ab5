"""Explain a score by hiding parts of an image: a grid of segments, which of them to show, and what each is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..errors import NeedError
from .gradient import check_images, target_scores

Outputs = Callable[[Tensor, Tensor], Tensor]
Score = Literal["probability", "output"]


def grid(images: Tensor, side: int) -> Tensor:
    """The segment of each pixel of images (B, C, H, W): (H, W) int64, at most ``side`` × ``side`` rectangles."""
    height, width = check_images(images).shape[2:]
    rows, columns = (torch.arange(n, device=images.device) * min(side, n) // n for n in (height, width))
    return rows[:, None] * min(side, width) + columns


def occlusion(outputs: Outputs, inputs: Tensor, targets: Tensor, side: int, score: Score) -> Tensor:
    """How much the score falls when a pixel's segment is hidden; -> (B, 1, H, W)."""
    segments = grid(inputs, side)
    scores = hiding(outputs, inputs, targets, one_hidden(segments), segments, score)
    return (scores[0] - scores[1:]).T[:, segments][:, None]


def lime(
    outputs: Outputs,
    inputs: Tensor,
    targets: Tensor,
    side: int,
    score: Score,
    samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The weight of a pixel's segment in a local linear model (Ribeiro et al., 2016); -> (B, 1, H, W)."""
    segments = grid(inputs, side)
    shown = some_hidden(segments, samples, generator)
    scores = hiding(outputs, inputs, targets, shown, segments, score)
    return local_ridge(shown, scores).T[:, segments][:, None]


def one_hidden(segments: Tensor) -> Tensor:
    """Everything shown, then each of the S segments hidden in turn: (S + 1, S) bool."""
    count = int(segments.max()) + 1
    shown = torch.ones(count + 1, count, dtype=torch.bool, device=segments.device)
    shown[1:].fill_diagonal_(False)
    return shown


def some_hidden(segments: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Everything shown, then each segment hidden with probability ½: (samples, S) bool."""
    count, device = int(segments.max()) + 1, segments.device if generator is None else generator.device
    shown = (torch.rand(samples, count, generator=generator, device=device) < 0.5).to(segments.device)
    shown[0] = True
    return shown


def hiding(
    outputs: Outputs, inputs: Tensor, targets: Tensor, shown: Tensor, segments: Tensor, score: Score, rows: int = 256
) -> Tensor:
    """The score of each target under each choice of segments; about ``rows`` images go through the model at once.

    outputs (images (N, C, H, W), mask (N, 1, H, W)) -> (N, outputs); shown (K, S), segments (H, W) -> (K, B).
    """
    found = []
    for chosen in torch.split(shown, max(1, rows // max(1, len(inputs)))):
        k = len(chosen)
        mask = chosen[:, segments].to(inputs.dtype)[:, None].repeat_interleave(len(inputs), 0)  # (k B, 1, H, W)
        values = outputs(inputs.detach().repeat(k, 1, 1, 1), mask)
        if score == "probability":
            if values.shape[-1] == 1:
                raise NeedError("the model has one output, which has no probability: set score=output")
            values = values.softmax(-1)
        found.append(target_scores(values, targets.repeat(k)).view(k, -1))
    return torch.cat(found)


def local_ridge(shown: Tensor, scores: Tensor, kernel_width: float = 0.25, ridge: float = 1.0) -> Tensor:
    """Weight of each segment in LIME's weighted ridge regression (Ribeiro et al., 2016, arXiv:1602.04938).

    shown (N, S) bool, scores (N, B) -> (S, B). Near samples, by cosine distance to the whole image, count more.
    """
    z, y = shown.to(torch.float64), scores.to(torch.float64)
    distance = 1 - z.mean(1).sqrt()  # cosine distance of a row of zeros and ones to the row of ones
    weight = (-(distance**2) / kernel_width**2).exp().sqrt()[:, None]
    z, y = (v - (weight * v).sum(0) / weight.sum() for v in (z, y))  # the intercept is not penalised
    normal = z.T @ (weight * z) + ridge * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    solved: Tensor = torch.linalg.solve(normal, z.T @ (weight * y))
    return solved.to(scores.dtype)
