"""How fast the command line starts: bare, and with 300 more plugins installed. Prints a table and JSON.

``python benchmarks/startup.py`` ends with status 3 when a limit is missed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

PLUGINS, ROUNDS = 300, 15
LIMITS = {"toolbox list": 0.25, "toolbox --help": 0.15}
FLOORS = {"python, nothing": "pass", "import typer": "import typer", "import paper_toolbox": "import paper_toolbox"}
METADATA = """Metadata-Version: 2.4
Name: paper-toolbox-made-{number}
Version: 0.1.0
Summary: Made up plugin {number}: one line about its idea
Keywords: made,up
License-Expression: Apache-2.0
Project-URL: Paper, https://example.org/{number}
Requires-Python: >=3.11
Requires-Dist: paper-toolbox-core<1,>=0.1
Requires-Dist: torch>=2.4

# Made {number}

## Fields

| `made_{number}` | default | bounds | meaning |
|---|---|---|---|
| `lr` | `0.001` | ≥ 0 | step size |
"""
KINDS = ("optimizer", "normalizer", "loss", "compressor", "attributor")


def make_plugins(place: Path) -> None:
    """Metadata of ``PLUGINS`` packages, as pip would leave them."""
    for number in range(PLUGINS):
        info = place / f"paper_toolbox_made_{number}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(number=number) + "A line of the card.\n" * 25, "utf-8")
        announced = f"[paper_toolbox.{KINDS[number % 5]}]\nmade_{number} = paper_toolbox_made_{number}\n"
        (info / "entry_points.txt").write_text(announced, "utf-8")


def commands() -> dict[str, list[str]]:
    """What is measured, by name."""
    toolbox = [sys.executable, "-m", "paper_toolbox_cli"]
    words = {"toolbox --help": ["--help"], "toolbox list": ["list"], "toolbox list --json": ["list", "--json"]}
    words |= {"toolbox info made_7": ["info", "made_7"], "toolbox search made": ["search", "made"]}
    return {
        **{name: [sys.executable, "-c", code] for name, code in FLOORS.items()},
        **{name: [*toolbox, *w] for name, w in words.items()},
    }


def measure(place: Path) -> dict[str, float]:
    """Median seconds by command; the commands take turns, so that a busy moment hits all of them."""
    environment = {**os.environ, "PYTHONPATH": str(place), "COLUMNS": "120"}
    seconds: dict[str, list[float]] = {name: [] for name in commands()}
    for turn in range(ROUNDS + 1):
        for name, command in commands().items():
            start = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first turn warms the file cache
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(took) for name, took in seconds.items()}


def main() -> int:
    with TemporaryDirectory() as folder:
        make_plugins(Path(folder))
        found = measure(Path(folder))
    print(f"{'command':24} {'median s':>9} {'limit s':>8}   with {PLUGINS} plugins more, {ROUNDS} rounds")
    for name, took in found.items():
        print(f"{name:24} {took:9.3f} {LIMITS.get(name, ''):>8}")
    print(json.dumps({"plugins": PLUGINS, "rounds": ROUNDS, "median_seconds": found, "limits": LIMITS}))
    missed = [name for name, limit in LIMITS.items() if found[name] > limit]
    for name in missed:
        print(f"{name} took {found[name]:.3f} s, more than {LIMITS[name]} s", file=sys.stderr)
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
