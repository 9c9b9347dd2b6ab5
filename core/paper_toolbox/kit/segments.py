"""Explain a score by hiding parts of an image: a grid of segments, which of them to show, and what each is worth."""

from __future__ import annotations

import torch
from torch import Tensor


def grid(height: int, width: int, side: int) -> Tensor:
    """Number of the segment of each pixel, (H, W) int64, from 0: at most ``side`` × ``side`` rectangles."""
    rows, columns = (torch.arange(n) * min(side, n) // n for n in (height, width))
    return rows[:, None] * min(side, width) + columns


def one_hidden(segments: int) -> Tensor:
    """Everything shown, then each segment hidden in turn: (S + 1, S) bool."""
    return torch.cat([torch.ones(1, segments, dtype=torch.bool), ~torch.eye(segments, dtype=torch.bool)])


def some_hidden(segments: int, samples: int, generator: torch.Generator | None) -> Tensor:
    """Everything shown, then random halves: (samples, S) bool."""
    device = None if generator is None else generator.device
    shown = torch.rand(samples, segments, generator=generator, device=device).cpu() < 0.5
    shown[0] = True
    return shown


def lime(shown: Tensor, scores: Tensor, kernel_width: float, ridge: float) -> Tensor:
    """Weight of each segment in a local ridge regression (Ribeiro et al., 2016, arXiv:1602.04938).

    shown (N, S) bool, scores (N, B) -> (S, B). Near samples, by cosine distance to the whole image, count more.
    """
    z, y = shown.to(torch.float64), scores.to(torch.float64)
    distance = 1 - z.mean(1).sqrt()  # cosine distance of a row of zeros and ones to the row of ones
    weight = (-(distance**2) / kernel_width**2).exp().sqrt()[:, None]
    z, y = (v - (weight * v).sum(0) / weight.sum() for v in (z, y))  # the intercept is not penalised
    normal = z.T @ (weight * z) + ridge * torch.eye(z.shape[1], dtype=z.dtype)
    return torch.linalg.solve(normal, z.T @ (weight * y)).to(scores.dtype)
