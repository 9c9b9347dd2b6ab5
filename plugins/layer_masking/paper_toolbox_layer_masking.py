"""Layer masking: run a network as if masked pixels did not exist (Balasubramanian and Feizi, 2022, arXiv:2211.14646)."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from paper_toolbox import Attributor, hookimpl, param
from paper_toolbox.errors import NeedError
from paper_toolbox.kit.capture import evaluating
from paper_toolbox.kit.gradient import check_inputs, target_scores
from paper_toolbox.kit.interpret import Interpreter, Rule, carried, unwrapped
from paper_toolbox.kit.segments import grid, lime, one_hidden, some_hidden
from torch import Tensor, nn

NAME = "layer_masking"
Score = Literal["probability", "output"]


@dataclass(frozen=True, kw_only=True)
class LayerMasking(Attributor):
    """How much the score falls when a segment is masked out of every layer (occlusion)."""

    side: int = param(8, "segments along each side of the image", low=1)
    score: Score = param("probability", "what is explained: the softmax or the raw output")

    def attribute(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """score(x) - score(x without the pixel's segment). inputs (B, C, H, W), targets (B,) -> (B, 1, H, W)."""
        segments = _segments(inputs, self.side)
        scores = masked_scores(model, inputs, targets, one_hidden(int(segments.max()) + 1), segments, self.score)
        return (scores[0] - scores[1:]).T[:, segments][:, None]


@dataclass(frozen=True, kw_only=True)
class LayerMaskingLime(Attributor):
    """LIME with segments masked out of every layer instead of painted over."""

    side: int = param(8, "segments along each side of the image", low=1)
    score: Score = param("probability", "what is explained: the softmax or the raw output")
    samples: int = param(1000, "random choices of segments", low=2)
    kernel_width: float = param(0.25, "how slowly a choice loses weight with its distance", above=0)
    ridge: float = param(1.0, "penalty of the local linear model", above=0)

    def attribute(
        self, model: nn.Module, inputs: Tensor, targets: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The segments' weights in a local linear model. inputs (B, C, H, W), targets (B,) -> (B, 1, H, W)."""
        segments = _segments(inputs, self.side)
        shown = some_hidden(int(segments.max()) + 1, self.samples, generator)
        scores = masked_scores(model, inputs, targets, shown, segments, self.score).cpu()
        return lime(shown, scores, self.kernel_width, self.ridge).T[:, segments][:, None].to(inputs.device)


@dataclass(frozen=True)
class Masked:
    """An image x (B, C, H, W), zero where hidden, and its mask (B, 1, H, W): 1 where visible."""

    x: Tensor
    mask: Tensor


def masked_scores(
    model: nn.Module, inputs: Tensor, targets: Tensor, shown: Tensor, segments: Tensor, score: Score, rows: int = 256
) -> Tensor:
    """The score of each target under each choice. shown (N, S) bool, segments (H, W) -> (N, B)."""
    found = []
    with evaluating(model), torch.no_grad():
        network = Interpreter(model, Masked, RULES, NAME)
        for chosen in shown.split(max(1, rows // max(1, len(inputs)))):
            k = len(chosen)
            mask = chosen[:, segments].to(inputs)[:, None].repeat_interleave(len(inputs), 0)  # (k B, 1, H, W)
            outputs = network.run(Masked(inputs.repeat(k, 1, 1, 1) * mask, mask))
            if score == "probability" and outputs.shape[-1] == 1:
                raise NeedError(f"{NAME}: one output has no probability; set score=output")
            values = outputs.softmax(-1) if score == "probability" else outputs
            found.append(target_scores(values, targets.repeat(k)).view(k, -1))
    return torch.cat(found)


def fill(x: Tensor, mask: Tensor, times: int, eps: float = 1e-5) -> Tensor:
    """Give hidden pixels beside visible ones the mean of these, ``times`` rings deep (neighbour padding)."""
    box = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype, device=x.device)
    for _ in range(times):
        near = F.conv2d(mask, box[:1], padding=1)  # how many of the 3 × 3 are visible
        x = x + (1 - mask) * F.conv2d(x, box, padding=1, groups=len(box)) / (near + eps)
        mask = (mask + near).clamp(0, 1)
    return x


def convolve(layer: nn.Conv2d, h: Masked) -> Masked:
    """An output exists where its window sees a visible pixel."""
    x = layer(fill(h.x, h.mask, max(layer.kernel_size)))
    ones = torch.ones_like(layer.weight[: layer.groups])
    seen = layer._conv_forward(h.mask.expand_as(h.x), ones, None)[:, :1]  # the layer's stride, padding, dilation
    mask = (seen > 0).to(x)
    return Masked(x * mask, mask)


def pool(run: Rule, h: Masked, *args: Any, **kwargs: Any) -> Masked:
    """A pooled pixel exists where its window sees a visible pixel."""
    mask = (run(h.mask, *args, **kwargs) > 0).to(h.x)
    return Masked(run(h.x, *args, **kwargs) * mask, mask)


def together(run: Rule, *args: Any, **kwargs: Any) -> Masked:
    """Entry by entry, of one image or of several: visible where any of them is."""
    mask = torch.stack([h.mask for h in carried((args, kwargs), Masked)]).amax(0)
    return Masked(plain(run, *args, **kwargs) * mask, mask)


def average(run: Rule, h: Masked, *args: Any, **kwargs: Any) -> Tensor:
    """The mean of the visible pixels; from here on a plain tensor."""
    mean: Tensor = run(h.x, *args, **kwargs) / (run(h.mask, *args, **kwargs) + 1e-8)
    return mean


def plain(run: Rule, *args: Any, **kwargs: Any) -> Any:
    """The image as it is, zero where hidden."""
    args, kwargs = unwrapped((args, kwargs), Masked, lambda h: h.x)
    return run(*args, **kwargs)


def _mean(run: Rule, h: Masked, dim: Any = None, keepdim: bool = False) -> Any:
    over_space = isinstance(dim, tuple | list) and sorted(d % 4 for d in dim) == [2, 3]
    return average(run, h, dim, keepdim) if over_space else NotImplemented
...
