"""Step times of optimizers on the parameters of a ResNet-18, side by side in interleaved rounds of one process.

``python benchmarks/optimizers.py [--rounds N] [--json FILE]``. Ratios are to torch's fused AdamW in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paper_toolbox as pt
import torch
from torch import Tensor, nn

Build = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OURS = ("sgd", "adam", "adamw", "adamp", "sgdp", "lion")
BASE = "torch AdamW fused"


def shapes() -> Iterator[tuple[int, ...]]:
    """The 62 tensors (11.7 M numbers) of torchvision's ResNet-18, in order."""
    yield from ((64, 3, 7, 7), (64,), (64,))
    before = 64
    for width in (64, 128, 256, 512):
        for inputs in (before, width):
            yield from ((width, inputs, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,))
            if inputs != width:
                yield from ((width, inputs, 1, 1), (width,), (width,))
        before = width
    yield from ((1000, 512), (1000,))


def ours(name: str, engine: str) -> Build:
    """One of this toolbox's methods."""
    decay = {} if name == "sgd" else {"weight_decay": 1e-2}
    momentum = {"momentum": 0.9} if name in ("sgd", "sgdp") else {}
    return lambda params: pt.method(name, "optimizer", lr=1e-3, **decay, **momentum).build(params, engine=engine)


def candidates() -> dict[str, Build]:
    """Everything to measure, by the name in the table; peers that are not installed are left out."""
    adamw = torch.optim.AdamW
    found: dict[str, Build] = {
        BASE: lambda params: adamw(params, fused=True),
        "torch AdamW foreach": lambda params: adamw(params, foreach=True),
        "torch AdamW loop": lambda params: adamw(params, foreach=False),
    }
    try:
        import adamp

        found["adamp AdamP"] = lambda params: adamp.AdamP(params, weight_decay=1e-2)
        found["adamp SGDP"] = lambda params: adamp.SGDP(params, lr=1e-3, momentum=0.9, weight_decay=1e-2)
    except ImportError:
        print("adamp is not installed", file=sys.stderr)
    try:
        import pytorch_optimizer

        found["pytorch_optimizer AdamP"] = lambda params: pytorch_optimizer.AdamP(params, weight_decay=1e-2)
        found["pytorch_optimizer Lion"] = lambda params: pytorch_optimizer.Lion(params, weight_decay=1e-2)
    except ImportError:
        print("pytorch_optimizer is not installed", file=sys.stderr)
    return found | {f"ours {name} {engine}": ours(name, engine) for engine in ("eager", "compiled") for name in OURS}


def parameters(gradients: list[Tensor]) -> list[nn.Parameter]:
    """Fresh parameters over shared gradients."""
    draw = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(g.shape, generator=draw) / 30) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = g
    return params


def measure(rounds: int, only: str) -> dict[str, list[float]]:
    """Seconds of one step of every candidate, round by round, after two steps of warm-up."""
    draw = torch.Generator().manual_seed(1)
    gradients = [torch.randn(shape, generator=draw) / 100 for shape in shapes()]
    built = {n: build(parameters(gradients)) for n, build in candidates().items() if n == BASE or only in n}
    times: dict[str, list[float]] = {name: [] for name in built}
    for turn in range(-2, rounds):
        for name, optimizer in built.items():
            start = time.perf_counter()
            optimizer.step()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def cold(name: str) -> float:
    """Seconds of the first compiled step in a new process with empty caches."""
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        command = [sys.executable, __file__, "--first-step", name]
        return float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def first_step(name: str) -> float:
    """Seconds of the first compiled step in this process."""
    optimizer = ours(name, "compiled")(parameters([torch.randn(shape) for shape in shapes()]))
    start = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - start


def table(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A row per candidate: median milliseconds, median ratio to the base in the same round, and its quartiles."""
    rows = []
    for name, seconds in times.items():
        ratios = [s / b for s, b in zip(seconds, times[BASE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append({"name": name, "ms": 1e3 * statistics.median(seconds), "ratio": middle, "low": low, "high": high})
    return rows


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Print the table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="part of the names to measure")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-cold", action="store_true", help="leave out the first steps in new processes")
    parser.add_argument("--first-step", choices=OURS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.first_step:
        print(first_step(given.first_step))
        return
    rows = table(measure(given.rounds, given.only))
    firsts = {} if given.no_cold else {name: cold(name) for name in OURS if given.only in f"ours {name} compiled"}
    print(machine())
    print(f"{'':32}{'ms':>9}{'× fused':>9}  (quartiles)")
    for row in rows:
        print(f"{row['name']:32}{row['ms']:9.1f}{row['ratio']:9.2f}  ({row['low']:.2f} … {row['high']:.2f})")
    for name, seconds in firsts.items():
        print(f"first compiled step, cold: {name:8} {seconds:5.1f} s")
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows, "first_step_s": firsts}, indent=2))


if __name__ == "__main__":
    main()
