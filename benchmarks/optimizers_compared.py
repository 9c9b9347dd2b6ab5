"""Optimizers compared on digits and on text by `toolbox compare`: verdicts, figures and pictures in docs/comparison.md.

``python benchmarks/optimizers_compared.py --out docs`` trains, from the root of a checkout; ``--render`` writes the
page anew from what was measured. ``--folder`` keeps the comparisons, and goes on with them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import fill
from typing import Any

from paper_toolbox.engine.comparison.report import decimals, sentence, shown
from PIL import Image

NAME = "comparison"
ROOT = Path(__file__).parents[1]
METHODS = ("adamw", "adam", "adamp", "sgd", "lion", "ademamix", "muon", "sam")
TASKS = {"digits": "a small convolutional network on digits", "text": "a small transformer on text, by characters"}
PICTURES = {"gains": "Gains", "curves": "Learning curves", "pareto": "Metric against time"}
SEEDS, TRIES = 10, 5
COLOURS = 256  # of a picture, which keeps it small
COLUMNS = {
    "method": "method",
    "value": "mean ± sd",
    "gain": "gain",
    "interval": "95 % interval",
    "p": "p (Holm)",
    "effect": "effect d",
    "verdict": "verdict",
    "step": "a step (ms)",
    "memory": "memory (MiB)",
    "kept": "tuned",
}


def words(task: str) -> list[str]:
    """The command, as a user types it."""
    plugins = [word for name in METHODS for word in ("--plugin", name)]
    return ["compare", f"examples/compare_{task}.yaml", *plugins, "--seeds", str(SEEDS), "--tune", str(TRIES)]


def compared(task: str, folder: Path) -> dict[str, Any]:
    """Run the command into ``folder``; what it found."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "paper_toolbox_cli", *words(task), "--out", str(folder)]
    subprocess.run([*command, *(["--resume"] if folder.exists() else [])], check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text("utf-8"))
    del found["trials"]
    spent = {"minutes": round((time.perf_counter() - began) / 60, 1), "load": round(os.getloadavg()[1], 1)}
    return found | {"command": " ".join(["toolbox", *words(task)])} | spent


def small(picture: Path, out: Path) -> None:
    """The picture with few colours, at two thirds of its size."""
    with Image.open(picture) as image:
        width, height = image.size
        smaller = image.convert("RGB").resize((width * 2 // 3, height * 2 // 3), Image.Resampling.LANCZOS)
    smaller.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(out, optimize=True)


def page(found: dict[str, Any]) -> str:
    """The comparisons as Markdown."""
    about = (
        "Written by `python benchmarks/optimizers_compared.py --out docs`, verdicts and pictures by `toolbox compare`. "
        f"Every method had {TRIES} tries for its step size and whatever else it declares worth tuning, then "
        f"{SEEDS} runs paired by seed with the best. The verdicts are on the methods with these values: what the luck "
        "of the tries contributes, the seeds do not show. What holds for two small tasks need not hold for others."
    )
    lines = ["# Optimizers compared", "", wrapped(about), ""]
    for task, own in found.items():
        lines += [f"## {TASKS[task].capitalize()}", "", *section(task, own)]
    return "\n".join(lines)


def section(task: str, own: dict[str, Any]) -> list[str]:
    """One comparison."""
    environment = ", ".join(f"{name} {value}" for name, value in own["environment"].items())
    lines = ["```", own["command"], "```", "", wrapped(sentence(own)), ""]
    lines += [f"| {' | '.join(COLUMNS.values())} |", "|" + "---|" * len(COLUMNS)]
    for row in own["rows"]:
        cells = shown(row, decimals(own["rows"])) | {"kept": own["tuned"][row["method"]]}
        cells["method"] = f"`{cells['method']}`"
        lines.append(f"| {' | '.join(cells[key] for key in COLUMNS)} |")
    spent = (
        f"{own['minutes']:g} minutes, at a load of {own['load']:g}: what the machine did besides makes steps longer."
    )
    lines += ["", wrapped(f"{environment}; {spent}"), ""]
    for name, title in PICTURES.items():
        lines += [f"![{title}]({NAME}_{task}_{name}.png)", ""]
    return lines


def wrapped(text: str) -> str:
    """A paragraph; no line begins within a word."""
    return fill(text, 120, break_on_hyphens=False, break_long_words=False)


def main() -> None:
    """Compare, or only write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for the page, its data and its pictures")
    parser.add_argument("--folder", type=Path, help="folder for the comparisons themselves; none: a temporary one")
    parser.add_argument("--render", action="store_true", help="only write the page, from the data in --out")
    given = parser.parse_args()
    if given.render:
        found = json.loads((given.out / f"{NAME}.json").read_text("utf-8"))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folders = {task: (given.folder or Path(temporary)).resolve() / task for task in TASKS}
            found = {task: compared(task, folder) for task, folder in folders.items()}
            for task, folder in folders.items() if given.out else ():
                for name in PICTURES:
                    small(folder / f"{name}.png", given.out / f"{NAME}_{task}_{name}.png")
    if given.out is None:
        print(page(found))
        return
    (given.out / f"{NAME}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (given.out / f"{NAME}.md").write_text(page(found), "utf-8")


if __name__ == "__main__":
    main()
