"""What the documents show can be typed: commands parse and name what there is, Python runs, figures are generated."""

from __future__ import annotations

import itertools
import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import paper_toolbox as pt
import pytest
import torch
import torch.nn.functional as F
import typer.main
from paper_toolbox import catalog, documents, proof
from paper_toolbox.errors import NothingChanged
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox_cli.app import app

ROOT = Path(__file__).parents[2]
CARDS = [folder / "README.md" for folder in documents.folders(ROOT)]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "models.md", *CARDS]
OWN = {"NAME", "my_method", "my_loss", "X", "A", "B"}  # names that stand for the reader's own
#: A figure that was measured: 2.4 ×, 12 ms, to 1e-12, 95 %. It belongs between the marks of the proof.
UNITS, CLOSE = r"(?:×|%|ms\b|µs\b|s\b|MB\b|GB\b|points\b)", r"(?:\bto|\bwithin|≤|\bmeasured|\bby)"
MEASURED = re.compile(rf"\d(?:\.\d+)?\s*{UNITS}|{CLOSE}\s*\d(?:\.\d+)?e-\d+|≤ 10⁻")
TASK = Task("classification", (TensorSpec("x", (1, 8, 8)),), 10)


def commands(page: Path) -> Iterator[str]:
    """Every ``toolbox …`` in a page, in backticks or at the start of a line of a block."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    found = [*lines, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]
    yield from (part.strip() for line in found for part in line.split("&&") if part.strip().startswith("toolbox "))


ALL = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{p.parent.name}: {c}" for p, c in ALL])
def test_a_command_can_be_typed(page: Path, command: str) -> None:
    words = shlex.split(command.replace("…", "").replace("[", " ").replace("]", " "))[1:]
    found: Any = typer.main.get_command(app)
    context = click.Context(found)
    while words and isinstance(found, click.Group):
        name = words.pop(0)
        inner = found.get_command(context, name)
        assert inner is not None, f"{page}: toolbox has no command {name}"
        found = inner
    if words and "NAME…" not in command:
        found.make_context(found.name, list(words), resilient_parsing="--help" in words)
    plugins = [value for flag, value in itertools.pairwise(words) if flag == "--plugin"]
    sets = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    for name in plugins:
        assert name in OWN or catalog.find(name)
    for assigned in sets:
        path, _, value = assigned.partition("=")
        name, _, field = path.rpartition(".")
        if name and name not in OWN:
            card = catalog.find(name)
            type(pt.method(card.name, card.kind)).from_options({field: value})


def snippets(card: Path) -> Iterator[str]:
    yield from re.findall(r"^```python\n(.*?)^```", card.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def names(model: str, regression: bool, folder: Path) -> dict[str, Any]:
    """What a reader has at hand where a card's Python begins."""
    torch.manual_seed(0)
    fields = {"cnn": {"width": 8, "depth": 2}, "vit": {"width": 16, "depth": 1, "heads": 2, "patch": 4}}
    net: Any = pt.method(model, "model", **fields[model]).build(TASK)
    images, targets = torch.randn(12, 1, 8, 8), torch.arange(12) % 10
    learner = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(30):  # a model that is sure of its answers, as a reader's is
        learner.zero_grad()
        F.cross_entropy(net(images), targets).backward()
        learner.step()
    logits = net(images)
    optimizer_like = {"closure": lambda: F.cross_entropy(net(images), targets)}
    known = {"torch": torch, "F": F, "model": net, "discriminator": net, "teacher": net, "x": images, "images": images}
    known |= {"inputs": images, "targets": torch.randn(12, 10) if regression else targets, "logits": logits}
    known |= {"predictions": logits if regression else logits.argmax(1).detach(), "embeddings": logits}
    known |= {"mask": torch.ones(12, 1, 8, 8), "epoch": 1, "epochs": 10, "criterion": F.cross_entropy, "task": TASK}
    places = {"folder": folder, "path": folder / "model.onnx"}
    return known | {"loader": [(images, targets)] * 3, **places, **optimizer_like}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: str(card.parent.name))
def test_the_python_on_a_card_runs(card: Path, tmp_path: Path) -> None:
    (code,) = snippets(card)
    regression = "--data diabetes" in card.read_text("utf-8")
    for model in ("cnn", "vit"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the ONNX exporter's own
                exec(compile(code, str(card), "exec"), names(model, regression, tmp_path))
        except NothingChanged:
            continue
        return
    pytest.fail(f"{card} shows Python that changes neither the cnn nor the vit")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: str(card.parent.name))
def test_measured_figures_stand_between_the_marks_of_the_proof(card: Path) -> None:
    """What a person typed in is true on the day it is typed; what `make proof` writes is checked."""
    text = card.read_text("utf-8")
    assert proof.BLOCK.search(text), f"{card} has no place for its proof"
    evidence = proof.BLOCK.sub("", text).partition("## Evidence")[2].partition("## Source")[0]
    found = MEASURED.findall(evidence)
    assert not found, f"{card} states measured figures by hand: {found}"
