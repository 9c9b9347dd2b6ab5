"""Pictures: readable PNGs of the promised content, whole or not at all, without pyplot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from paper_toolbox.engine.reports import drawing, pictures
from paper_toolbox.engine.reports.pictures import attribution_sheet, learning_curve
from paper_toolbox.errors import ArtifactError
from PIL import Image
from torch import Tensor

CURVE = [
    {"epoch": 1, "step": 10, "train_loss": 1.5, "loss": 1.4, "accuracy": 0.5, "seconds": 0.1},
    {"epoch": 2, "step": 20, "train_loss": 0.5, "loss": 0.6, "accuracy": 0.9, "seconds": 0.2},
    {"epoch": 3, "step": 30, "train_loss": 0.2, "loss": 0.7, "accuracy": 0.8, "seconds": 0.3},
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures made."""
    figures: list[Figure] = []
    made = drawing.figure

    def figure(width: float, height: float) -> Figure:
        figures.append(made(width, height))
        return figures[-1]

    monkeypatch.setattr(drawing, "figure", figure)
    return figures


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.convert("RGB")


def images(rows: int, channels: int, maps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, channels, 6, 5, generator=draw)
    attributions = torch.randn(rows, maps, 6, 5, generator=draw)
    return inputs, attributions, torch.zeros(rows, dtype=torch.int64), torch.arange(rows) % 3


@pytest.mark.parametrize(("channels", "maps"), [(1, 1), (3, 3), (3, 1), (4, 4)])
def test_a_sheet_has_a_row_per_image(tmp_path: Path, drawn: list[Figure], channels: int, maps: int) -> None:
    inputs, attributions, targets, predictions = images(3, channels, maps)
    attribution_sheet(inputs, attributions, targets, predictions, tmp_path / "a.png", ["no", "a $5 note", "100 $"])
    image = opened(tmp_path / "a.png")
    assert min(image.size) > 300
    panels = drawn[0].axes[:9]
    assert [p.get_title() for p in panels[:3]] == ["input", "attribution", "overlay"]
    assert [p.get_ylabel() for p in panels[::3]] == [
        "true no\npredicted no",
        "true no\npredicted a \\$5 note",
        "true no\npredicted 100 \\$",
    ]
    low, high = panels[1].images[0].get_clim()
    assert -low == high == pytest.approx(float(attributions[0].sum(0).abs().max()))


def test_labels_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    batch = images(4, 1, 1)
    attribution_sheet(*batch, tmp_path / "a.png", ["one class with a very long name", "b", "c"])
    figure = drawn[0]
    boxes = [panel.yaxis.label.get_window_extent() for panel in figure.axes[:12:3]]
    assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    panels = [panel.get_window_extent() for panel in figure.axes]
    assert all(not a.overlaps(b) for i, a in enumerate(panels) for b in panels[:i])


def test_an_empty_map_and_many_images_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    inputs, _, targets, predictions = images(12, 1, 1)
    attribution_sheet(inputs, torch.zeros_like(inputs), targets, predictions, tmp_path / "a.png", [])
    assert len(drawn[0].axes) == pictures.ROWS * 4  # three panels and a colour bar each


def test_a_table_gets_bars_of_the_mean_size(tmp_path: Path, drawn: list[Figure]) -> None:
    attributions = torch.tensor([[1.0, -4, 0], [-1, 2, 0]])
    targets, predictions = torch.tensor([[0.5], [1.5]]), torch.zeros(2, dtype=torch.int64)
    attribution_sheet(
        torch.ones(2, 3), attributions, targets, predictions, tmp_path / "a.png", (), ["age", "$", "mass"]
    )
    panel = drawn[0].axes[0]
    assert [bar.get_width() for bar in panel.patches] == [3, 1, 0]  # type: ignore[attr-defined]  # bars are rectangles
    assert [label.get_text() for label in panel.get_yticklabels()] == ["\\$", "age", "mass"]
    assert opened(tmp_path / "a.png").size[0] > 300


def test_a_regression_names_its_values(tmp_path: Path, drawn: list[Figure]) -> None:
    inputs, attributions, _, outputs = images(2, 1, 1)
    attribution_sheet(inputs, attributions, torch.tensor([[151.23], [0.5]]), outputs, tmp_path / "a.png", [])
    assert drawn[0].axes[0].get_ylabel() == "target 151\noutput 0"


def test_the_learning_curve_marks_the_best_epoch(tmp_path: Path, drawn: list[Figure]) -> None:
    learning_curve(CURVE, tmp_path / "c.png")
    losses, metric = drawn[0].axes
    assert {line.get_label() for line in losses.lines} == {"training", "validation"}
    assert list(losses.lines[0].get_ydata()) == [1.5, 0.5, 0.2]  # type: ignore[arg-type]  # plain numbers
    legend = metric.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "best 0.9, epoch 2"
    assert opened(tmp_path / "c.png").size[0] > 300


@pytest.mark.parametrize(
    "metrics",
    [
        CURVE[:1],
        [{"epoch": 1, "train_loss": 2.0}],
        [{"epoch": i, "train_loss": 1 / i, "loss": 2 / i, "rmse": 3 / i} for i in range(1, 300)],
        [{"epoch": 1, "train_loss": 1.0, "accuracy": float("nan")}, {"epoch": 2, "train_loss": 1.0, "accuracy": 0.5}],
    ],
)
def test_odd_curves_are_drawn(tmp_path: Path, metrics: list[dict[str, float]]) -> None:
    learning_curve(metrics, tmp_path / "c.png")
    opened(tmp_path / "c.png")


def test_a_failure_leaves_the_earlier_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.png"
    learning_curve(CURVE, path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(ArtifactError, match="No space left"):
        learning_curve(CURVE[:1], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.png"]


def test_pyplot_is_never_imported() -> None:
    code = "import paper_toolbox.engine.reports.pictures, sys; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
