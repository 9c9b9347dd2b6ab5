"""The pictures of a run's report: curve, confusion, calibration, and what the gradients say that it looked at."""

from __future__ import annotations

import base64
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ...artifact import Artifact
from ...kit.gradient import input_gradient
from .drawing import BLUE, GREY, figure, lighten, plain, write
from .outcome import MOST, Outcome
from .pictures import attribution_sheet, learning_curve

SHOWN = 3  #: samples right, and as many wrong, whose attribution is drawn


def pictures(run: Artifact, found: Outcome) -> list[tuple[str, str]]:
    """(title, PNG in base64) of everything that suits the task."""
    made: list[tuple[str, str]] = []
    with TemporaryDirectory() as folder:

        def add(title: str, draw: Any, *given: Any) -> None:
            path = Path(folder) / "picture.png"
            draw(*given, path)
            made.append((title, base64.b64encode(path.read_bytes()).decode("ascii")))

        if history := run.history():
            add("Learning curve" + (", before compression" if "chain" in run.summary else ""), learning_curve, history)
        if run.task.kind == "regression":
            add("Predicted against true", _scatter, found)
        else:
            if found.outputs.shape[1] <= MOST:
                add("Confusion matrix", _confusion, found)
            add("Calibration", _calibration, found)
        for title, some in samples(found) if _has_a_picture(run) else ():
            add(title, _attributions, found, some)
    return made


def samples(found: Outcome) -> list[tuple[str, Tensor]]:
    """Positions of samples that were right and of those that were wrong, the most certain first.

    Of numbers those that came closest, and those that were farthest off.
    """
    if found.data.task.kind == "regression":
        order = (found.outputs - found.targets).square().mean(1).argsort()
        return [("What it saw: closest", order[:SHOWN]), ("What it saw: farthest", order.flip(0)[:SHOWN])]
    confidence = found.outputs.softmax(1).amax(1)
    chosen = []
    for title, those in (("What it saw: right", found.right), ("What it saw: wrong", ~found.right)):
        places = those.nonzero()[:, 0]
        if len(places):
            chosen.append((title, places[confidence[places].argsort(descending=True)[:SHOWN]]))
    return chosen


def _has_a_picture(run: Artifact) -> bool:
    """Whether gradients tell which entries of the input mattered: it is one, and not of ids."""
    return len(run.task.inputs) == 1 and run.task.inputs[0].dtype.startswith("float")


def _attributions(found: Outcome, some: Tensor, path: Path) -> None:
    """Gradient times input of the answer given, or of the first number."""
    inputs, targets = found.data.validation.take(some)
    assert isinstance(inputs, Tensor), "there is one input"
    regression = found.data.task.kind == "regression"
    looked_at = targets.new_zeros(len(some), dtype=torch.int64) if regression else found.predictions[some]
    maps = input_gradient(found.model, inputs, looked_at) * inputs
    shown = (found.targets[some], found.outputs[some]) if regression else (targets, looked_at)
    attribution_sheet(inputs, maps, *shown, path, found.data.task.classes)


def _confusion(found: Outcome, path: Path) -> None:
    counts = found.confusion()
    names = [plain(str(c)) for c in found.data.task.classes] or [str(i) for i in range(len(counts))]
    size = 2.4 + 0.32 * len(counts)
    made = figure(size, size)
    panel = made.subplots()
    panel.imshow(counts, cmap="Blues")
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            if count:
                panel.text(
                    j,
                    i,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="w" if count > counts.max() / 2 else "k",
                )
    tilted: dict[str, Any] = {"rotation": 60, "ha": "right"} if max(map(len, names)) > 2 else {}
    panel.set_xticks(range(len(names)), names, fontsize=7, **tilted)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set(xlabel="predicted", ylabel="true")
    write(made, path)


def _calibration(found: Outcome, path: Path) -> None:
    rows = found.calibration()
    made = figure(4.4, 4)
    panel = made.subplots()
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    total = sum(row["count"] for row in rows)
    sizes = [20 + 300 * row["count"] / total for row in rows]
    panel.plot([row["confidence"] for row in rows], [row["accuracy"] for row in rows], color=BLUE, linewidth=1)
    panel.scatter(
        [row["confidence"] for row in rows], [row["accuracy"] for row in rows], s=sizes, color=BLUE, alpha=0.6
    )
    panel.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1.03), ylim=(0, 1.03))
    lighten(panel)
    write(made, path)


def _scatter(found: Outcome, path: Path) -> None:
    made = figure(4.4, 4)
    panel = made.subplots()
    panel.scatter(found.targets.flatten(), found.outputs.flatten(), s=10, alpha=0.5, color=BLUE)
    ends = [float(min(found.targets.min(), found.outputs.min())), float(max(found.targets.max(), found.outputs.max()))]
    panel.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
    panel.set(xlabel="true", ylabel="predicted")
    lighten(panel)
    write(made, path)
