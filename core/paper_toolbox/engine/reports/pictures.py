"""Pictures for people: what a method looked at, and how a run learned. No global state of pyplot is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from . import drawing
from .drawing import BLUE, GREY, RED, plain

ROWS, FEATURES = 8, 20  # most that a picture shows


def attribution_sheet(
    inputs: Tensor,
    attributions: Tensor,
    targets: Tensor,
    predictions: Tensor,
    out_path: Path,
    classes: Sequence[str] = (),
    features: Sequence[str] = (),
) -> None:
    """One PNG: for images rows of input, map and overlay; else bars of the mean |attribution| of each feature.

    inputs (B, ...), attributions like them or of one channel; targets and predictions (B,) or (B, D).
    """
    inputs, attributions = inputs.detach().float().cpu(), attributions.detach().float().cpu()
    if inputs.dim() == 4:
        figure = _images(inputs[:ROWS], attributions[:ROWS], _titles(targets.cpu(), predictions.cpu(), classes))
    else:
        figure = _bars(attributions.flatten(1), features)
    drawing.write(figure, out_path)


def learning_curve(metrics: Sequence[Mapping[str, Any]], out_path: Path) -> None:
    """One PNG: the losses above, the validation metric below, epoch by epoch; the best epoch is marked."""
    epochs = [row.get("epoch", i) for i, row in enumerate(metrics, 1)]
    metric = next((name for name in ("accuracy", "rmse") if any(name in row for row in metrics)), None)
    figure = drawing.figure(6.4, 5.4 if metric else 3.4)
    panels = figure.subplots(2 if metric else 1, 1, sharex=True, squeeze=False)[:, 0]
    for name, label, colour in (("train_loss", "training", BLUE), ("loss", "validation", RED)):
        values = [row.get(name, float("nan")) for row in metrics]
        if any(name in row for row in metrics):
            panels[0].plot(epochs, values, "o-", color=colour, label=label, markersize=3.5)
    panels[0].set(ylabel="loss", title="Learning curve")
    panels[0].legend(frameon=False)
    if metric:
        _metric(panels[1], epochs, [row.get(metric, float("nan")) for row in metrics], metric)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels:
        drawing.lighten(panel)
    drawing.write(figure, out_path)


def _metric(panel: Axes, epochs: list[Any], values: list[float], metric: str) -> None:
    known = [value for value in values if value == value]
    panel.plot(epochs, values, "o-", color=RED, markersize=3.5)
    if known:
        best = max(known) if metric == "accuracy" else min(known)
        at = epochs[values.index(best)]
        panel.plot([at], [best], "o", color=RED, markersize=9, fillstyle="none", label=f"best {best:.4g}, epoch {at}")
        panel.legend(frameon=False)
    panel.set_ylabel(f"validation {metric}")
    panel.margins(y=0.15)


def _images(inputs: Tensor, attributions: Tensor, titles: list[str]) -> Figure:
    """Rows of input, map, overlay; each map has its own scale, symmetric around 0."""
    rows = len(inputs)
    figure = drawing.figure(7.6, 2.3 * rows + 0.5)
    axes = figure.subplots(rows, 3, squeeze=False)
    for row, (image, attribution) in enumerate(zip(inputs, attributions, strict=True)):
        heat = attribution.sum(0)  # (H, W)
        limit = float(heat.abs().max()) or 1.0
        grey = image.mean(0).numpy()
        colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
        axes[row, 0].imshow(_picture(image), cmap="gray", interpolation="nearest")
        shown = axes[row, 1].imshow(heat.numpy(), **colours)
        axes[row, 2].imshow(grey, cmap="gray", interpolation="nearest")
        axes[row, 2].imshow(heat.numpy(), alpha=(heat.abs() / limit).sqrt().clamp(0, 0.85).numpy(), **colours)
        bar = figure.colorbar(shown, ax=axes[row, 2], fraction=0.046, pad=0.04, ticks=[-limit, 0, limit])
        bar.ax.set_yticklabels([f"{-limit:.2g}", "0", f"{limit:.2g}"], fontsize=8)
        axes[row, 0].set_ylabel(titles[row], fontsize=9)
    for column, title in enumerate(("input", "attribution", "overlay")):
        axes[0, column].set_title(title, fontsize=11)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    return figure


def _bars(attributions: Tensor, features: Sequence[str]) -> Figure:
    """The largest means over the batch, the largest on top; the mark is the standard error."""
    size = attributions.abs()
    mean = size.mean(0)
    order = mean.argsort(descending=True)[:FEATURES]
    names = list(features) if len(features) == len(mean) else [f"feature {i}" for i in range(len(mean))]
    error = size.std(0) / len(size) ** 0.5 if len(size) > 1 else torch.zeros_like(mean)
    figure = drawing.figure(6.4, 0.28 * len(order) + 1.3)
    panel = figure.subplots()
    panel.barh(range(len(order)), mean[order].numpy(), xerr=error[order].numpy(), color=BLUE, ecolor=GREY, height=0.7)
    panel.set_yticks(range(len(order)), [plain(names[i]) for i in order.tolist()], fontsize=9)
    panel.invert_yaxis()
    panel.margins(y=0.01)
    shown = f"the {len(order)} largest of {len(mean)} features, " if len(order) < len(mean) else ""
    panel.set(xlabel="mean |attribution|", title=f"Attribution ({shown}{len(size)} samples)")
    drawing.lighten(panel)
    return figure


def _titles(targets: Tensor, predictions: Tensor, classes: Sequence[str]) -> list[str]:
    """One label a sample, in two lines."""

    def said(values: Tensor, row: int) -> str:
        if values.is_floating_point():
            return ", ".join(f"{v:.3g}" for v in values[row].flatten().tolist())
        number = int(values[row])
        name = str(classes[number]) if number < len(classes) else str(number)
        return plain(name if len(name) <= 18 else f"{name[:17]}…")

    first = "target" if targets.is_floating_point() else "true"
    second = "output" if targets.is_floating_point() and not predictions.is_floating_point() else "predicted"
    return [f"{first} {said(targets, i)}\n{second} {said(predictions, i)}" for i in range(min(ROWS, len(targets)))]


def _picture(image: Tensor) -> np.ndarray[Any, Any]:
    """(C, H, W) of any scale -> (H, W, 3) or, unless there are three channels, (H, W), in 0…1."""
    low, high = image.min(), image.max()
    scaled = (image - low) / (high - low).clamp(min=1e-12)
    return (scaled.permute(1, 2, 0) if len(image) == 3 else scaled.mean(0)).numpy()
