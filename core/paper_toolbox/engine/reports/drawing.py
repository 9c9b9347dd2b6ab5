"""What all pictures share: figures without pyplot's global state, a light look, files written whole."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...files import replacing

BLUE, RED, GREY = "#2166ac", "#b2182b", "#555555"


def figure(width: float, height: float) -> Figure:
    """An empty figure of inches, drawn by Agg."""
    made = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(made)
    return made


def lighten(panel: Axes) -> None:
    """A faint grid and no box."""
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def plain(text: str) -> str:
    """Text as it is: without the dollar signs that matplotlib reads as mathematics."""
    return text.replace("$", r"\$")


def write(made: Figure, path: Path) -> None:
    """The figure as a PNG at ``path``, whole or not at all."""
    with replacing(path) as temporary:
        made.savefig(temporary, format="png", facecolor="white")
