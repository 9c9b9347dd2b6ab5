"""The three pictures of a comparison: gains with their intervals, learning curves with bands, metric against time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ..reports.drawing import GREY, RED, figure, lighten, plain, write
from .comparison import Comparison
from .verdicts import FEWEST

Row = dict[str, Any]
GREEN = "#1b7837"
COLOURS = {"better": GREEN, "worse": RED}
LINES = ("-", "--", ":", "-.")
MARKS = "osD^"
WIDE = 30.0  # an axis whose largest value is so many times the smallest is drawn by the logarithm


def gains(rows: Sequence[Row], metric: str, path: Path) -> None:
    """The gain of each method over the first, with its 95 % interval; coloured where there is a verdict."""
    first, told = rows[0]["method"], [row for row in rows[1:] if row["gain"] is not None]
    made = figure(9, 1.1 + 0.3 * max(1, len(told)))
    panel = made.subplots()
    panel.axvline(0, color=GREY, linewidth=0.8)
    for place, row in enumerate(told):
        colour = COLOURS.get(row["verdict"], GREY)
        if row["low"] is not None:
            panel.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2.2, alpha=0.6)
        panel.plot(row["gain"], place, "o", color=colour, markersize=6)
    panel.set_yticks(range(len(told)), [plain(_short(row["method"])) for row in told])
    panel.set(xlabel=f"gain in {metric} over {plain(first)}  (to the right: better)", ylim=(len(told) - 0.4, -0.6))
    lighten(panel)
    write(made, path)


def curves(comparison: Comparison, metric: str, path: Path) -> None:
    """Training loss and metric by epoch: the mean over seeds, and a 95 % band of it where they are enough."""
    count = len(comparison.recipes)
    made = figure(9, 3.6 + 0.14 * max(0, count - 8))
    for panel, name in zip(made.subplots(1, 2), ("train_loss", metric), strict=True):
        lowest, highest = math.inf, -math.inf
        for label, style in _styles(comparison).items():
            runs = [r["history"] for r in comparison.results[label].values() if "history" in r]
            if runs:
                ends = _curve(panel, style, runs, name, min(0.15, 1 / count))
                lowest, highest = min(lowest, ends[0]), max(highest, ends[1])
        title = {"train_loss": "training loss"}.get(name, f"{name} on the validation part")
        panel.set(xlabel="epoch", title=title, yscale="log" if 0 < lowest * WIDE < highest else "linear")
        panel.xaxis.get_major_locator().set_params(integer=True)
        lighten(panel)
    _legend(made, made.axes[0], count)
    write(made, path)


def _curve(panel: Axes, style: dict[str, Any], runs: list[Any], name: str, shade: float) -> tuple[float, float]:
    """The smallest and the largest mean."""
    found = np.array([[row[name] for row in history] for history in runs])  # (seeds, epochs)
    epochs, mean = [row["epoch"] for row in runs[0]], found.mean(0)
    mark = "o" if len(epochs) == 1 else None  # a line through one point is none
    panel.plot(epochs, mean, marker=mark, linewidth=1.6, **style)
    if len(found) >= FEWEST:
        half = stats.t.ppf(0.975, len(found) - 1) * found.std(0, ddof=1) / math.sqrt(len(found))
        ends = np.clip([mean - half, mean + half], 0, 1 if name == "accuracy" else None)
        panel.fill_between(epochs, *ends, color=style["color"], alpha=shade, linewidth=0)
    return float(mean.min()), float(mean.max())


def pareto(rows: Sequence[Row], comparison: Comparison, metric: str, higher_is_better: bool, path: Path) -> None:
    """The metric, with its standard deviation, against the time of a step; who is beaten in both is pale."""
    sign = 1 if higher_is_better else -1
    shown = [row for row in rows if row["mean"] is not None]
    made = figure(9, 3.8 + 0.14 * max(0, len(rows) - 10))
    panel = made.subplots()
    styles = _styles(comparison)
    for row in shown:
        place = (sign * row["mean"], -row["step_s"])
        others = ((sign * o["mean"], -o["step_s"]) for o in shown if o is not row)
        beaten = any(o != place and all(x >= y for x, y in zip(o, place, strict=True)) for o in others)
        style = styles[row["method"]]
        look = {
            "color": style["color"],
            "fmt": MARKS[LINES.index(style["linestyle"])],
            "alpha": 0.35 if beaten else 1.0,
        }
        panel.errorbar(1e3 * row["step_s"], row["mean"], row["std"] or 0, capsize=3, label=style["label"], **look)
    times = [row["step_s"] for row in shown]
    panel.set(xlabel="time of a step (ms)", ylabel=f"{metric} on the validation part")
    panel.set_xscale("log" if max(times) > WIDE * min(times) else "linear")
    lighten(panel)
    _legend(made, panel, len(shown))
    write(made, path)


def _styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """How each method is drawn: ten colours, then other lines and marks."""
    return {
        label: {"label": plain(_short(label)), "color": f"C{i % 10}", "linestyle": LINES[i // 10 % len(LINES)]}
        for i, label in enumerate(comparison.recipes)
    }


def _legend(made: Figure, panel: Axes, count: int) -> None:
    """Beside the panels, where it hides nothing."""
    handles, labels = panel.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, ncols=1 + count // 26)


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"
