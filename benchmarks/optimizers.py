"""Step times of every installed optimizer beside torch's fused AdamW and the public implementations of the same method.

``python benchmarks/optimizers.py [--shapes resnet18|gpt] [--device cuda] [--only a,b] [--rounds N] [--out FOLDER]``.
A candidate steps in turn with the base, in one process; a ratio is that of two steps of the same round, its interval
that of the median by the bootstrap. "× a byte" divides it by what a step must read and write: weights, gradients and
its own state. "extra" is the most memory that is taken during a step beside these, as a share of the weights.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paper_toolbox as pt
import speed_page
import torch
import torch.nn.functional as F
from paper_toolbox import catalog, needs
from paper_toolbox.errors import ToolboxError
from paper_toolbox.kit.rule import Rule
from paper_toolbox.kit.samples import Samples
from paper_toolbox.testing.claim import module_of
from paper_toolbox.testing.peers.ledger import home
from scipy.stats import bootstrap
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

BASE = "torch AdamW fused"
STEPS = 1000  # that a schedule is told the run has
LIMIT = 20.0  # seconds for one step of a candidate; slower ones are measured once
WARM = 7  # steps before the clock runs: kernels are compiled in them, and opt_amsgrad guesses from its sixth on

Build = Callable[[nn.Module, list[nn.Parameter]], Any]


@dataclass(frozen=True)
class Candidate:
    """A name for the table, and how it is made."""

    name: str
    build: Build
    closure: str = "none"


def resnet18() -> nn.Module:
    """The layers of a ResNet-18: 62 tensors, 11.7 M numbers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, bias=False), nn.BatchNorm2d(64)]
    before = 64
    for width in (64, 128, 256, 512):
        for inputs in (before, width):
            layers += [nn.Conv2d(inputs, width, 3, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)]
            if inputs != width:
                layers += [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)]
        before = width
    return nn.Sequential(*layers, nn.Linear(512, 1000))


def gpt(width: int = 768) -> nn.Module:
    """The layers of a transformer of GPT-2's smallest size: 148 tensors, 124 M numbers."""
    layers: list[nn.Module] = [nn.Embedding(50257, width), nn.Embedding(1024, width)]
    for _ in range(12):
        layers += [nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)]
        layers += [nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)]
    return nn.Sequential(*layers, nn.LayerNorm(width))


SHAPES = {"resnet18": resnet18, "gpt": gpt}


def ours(name: str, engine: str) -> Build:
    """One of this toolbox's methods, at its defaults."""

    def build(model: nn.Module, params: list[nn.Parameter]) -> Any:
        method = pt.method(name, "optimizer")
        given = {"model": model, "engine": engine, "steps_total": STEPS, "steps_per_epoch": STEPS // 10}
        return method.build(params, **needs.supply(method.build, given))

    return build


def candidates(closures: tuple[str, ...]) -> Iterator[Candidate]:
    """Torch's own, then each installed method with its peers; peers that are not installed are left out."""
    adamw: Any = torch.optim.AdamW
    if "none" in closures:
        yield Candidate("torch AdamW foreach", lambda _, params: adamw(params, foreach=True))
        yield Candidate("torch AdamW loop", lambda _, params: adamw(params, foreach=False))
    for card in catalog.cards():
        if card.kind != "optimizer":
            continue
        method = pt.method(card.name, "optimizer")
        if method.closure not in closures:
            continue
        engines = ("auto", "compiled") if isinstance(method, Rule) and method.closure == "none" else ("auto",)
        for engine in engines:
            yield Candidate(f"{card.name} {engine}", ours(card.name, engine), method.closure)
        yield from peers(card)


def peers(card: Any) -> Iterator[Candidate]:
    """The public implementations that the method's plugin names in ``peers_NAME.py``, at our defaults."""
    folder = home(card)
    for file in sorted(folder.glob("peers_*.py")) if folder else ():
        for peer in module_of(file).PEERS:
            if peer.method == card.name and peer.theirs is not None and not peer.partial:
                yield Candidate(f"{card.name} by {peer.package} {peer.name}", theirs(peer), peer.cases[0].closure)


def theirs(peer: Any) -> Build:
    """A peer with the fields of its first case."""
    return lambda _, params: peer.theirs(peer.cases[0], params)


def asked(name: str, only: str) -> bool:
    """Whether a candidate or a row is of one of the methods in ``only``, or all are asked for."""
    return not only or name.split()[0] in only.split(",")


def fresh(shapes: str, device: str) -> tuple[nn.Module, list[nn.Parameter]]:
    """A model of those shapes with its gradients."""
    torch.manual_seed(0)
    model = SHAPES[shapes]().to(device)
    for p in model.parameters():
        p.grad = torch.randn_like(p) / 100
    return model, list(model.parameters())


def stepping(candidate: Candidate, shapes: str, device: str) -> tuple[Callable[[], Any], Any]:
    """One step of it on parameters of its own, closures free of charge; and the optimizer."""
    model, params = fresh(shapes, device)
    optimizer = candidate.build(model, params)
    gradients = [p.grad for p in params]

    def closure() -> Tensor:
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        return torch.zeros(())

    return (optimizer.step if candidate.closure == "none" else lambda: optimizer.step(closure)), optimizer


def seconds(step: Callable[[], Any], device: str) -> float:
    """Of one step, until its last kernel is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra(step: Callable[[], Any], device: str) -> int:
    """The most bytes taken during a step beside what is there already."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    kineto: Any = seen.profiler
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    taken = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(taken), default=0)


def moved(optimizer: Any) -> int:
    """Bytes that a step must read and write: weights and state twice, gradients once."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return 3 * sum(map(size, params)) + 2 * sum(map(size, kept))


def size(x: Tensor) -> int:
    return x.numel() * x.element_size()


def measured(candidate: Candidate, base: Any, given: Any) -> dict[str, Any]:
    """A row of the table."""
    step, optimizer = stepping(candidate, given.shapes, given.device)
    first = seconds(step, given.device)
    for _ in range(WARM - 1 if first < LIMIT else 0):
        step()
    base[0]()
    rounds = range(given.rounds if first < LIMIT else 1)
    pairs = [(seconds(step, given.device), seconds(base[0], given.device)) for _ in rounds]
    ratios = [a / b for a, b in pairs]
    ratio = statistics.median(ratios)
    low, high = interval(ratios)
    bytes_ratio = moved(base[1]) / moved(optimizer)
    weights = sum(size(p) for group in optimizer.param_groups for p in group["params"])
    row = {"name": candidate.name, "ms": 1e3 * statistics.median(a for a, _ in pairs), "ratio": ratio}
    row |= {"low": low, "high": high, "per_byte": ratio * bytes_ratio, "first_step_s": first}
    return row | {"extra": extra(step, given.device) / weights}


def interval(values: list[float]) -> tuple[float, float]:
    """95 % of the median."""
    if len(set(values)) < 3:
        return min(values), max(values)
    found = bootstrap((np.array(values),), np.median, method="percentile", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def whole_steps(given: Any) -> list[dict[str, Any]]:
    """Steps with all their passes, of a small net on 64 digits, beside those of torch's AdamW."""
    digits = load_digits()
    x, y = torch.from_numpy(digits.data[:64]).float() / 16, torch.from_numpy(digits.target[:64])
    adamw: Any = torch.optim.AdamW
    base = passing(Candidate(BASE, lambda _, params: adamw(params, fused=True)), x, y)
    rows = []
    for candidate in candidates(("gradient", "loss", "samples")):
        if asked(candidate.name, given.only) and " by " not in candidate.name:
            step = passing(candidate, x, y)
            first = seconds(step, "cpu")
            pairs = [(seconds(step, "cpu"), seconds(base, "cpu")) for _ in range(given.rounds if first < 2 else 1)]
            ratios = [a / b for a, b in pairs]
            low, high = interval(ratios)
            ms = 1e3 * statistics.median(a for a, _ in pairs)
            rows.append(
                {"name": candidate.name, "ms": ms, "ratio": statistics.median(ratios), "low": low, "high": high}
            )
    return rows


def passing(candidate: Candidate, x: Tensor, y: Tensor) -> Callable[[], Any]:
    """A whole step of it on a net of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = candidate.build(model, list(model.parameters()))

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    def gradient() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        return value

    match candidate.closure:
        case "none":
            return lambda: (gradient(), optimizer.step())
        case "gradient":
            return lambda: optimizer.step(gradient)
        case "loss":
            return lambda: optimizer.step(loss)
    return lambda: optimizer.step(Samples(model, [(x, y)], F.cross_entropy))


def machine(device: str) -> str:
    """What the figures were measured on."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def show(row: dict[str, Any]) -> None:
    rest = f"{row['ms']:9.2f}{row['ratio']:9.2f}  ({row['low']:.2f} … {row['high']:.2f})"
    if "per_byte" in row:
        rest += f"{row['per_byte']:9.2f}{row['extra']:8.2f}"
    print(f"{row['name']:48}{rest}", flush=True)


def main() -> None:
    """Print the tables; write them as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", choices=SHAPES, default="resnet18")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="methods to measure, a,b; others keep their rows")
    parser.add_argument("--out", type=Path, help="folder for the figures as JSON and the page of all of them")
    given = parser.parse_args()
    print(f"{machine(given.device)}; {given.shapes}")
    adamw: Any = torch.optim.AdamW
    base = stepping(Candidate(BASE, lambda _, params: adamw(params, fused=True)), given.shapes, given.device)
    base[0]()
    print(f"{'one step':48}{'ms':>9}{'× fused':>9}  (95 %)         × a byte   extra")
    rows = []
    for candidate in candidates(("none", "gradient")):
        if asked(candidate.name, given.only):
            try:
                rows.append(measured(candidate, base, given))
                show(rows[-1])
            except ToolboxError as error:  # it does not take such layers
                print(f"{candidate.name:48}cannot: {error}")
            gc.collect()
    print(f"{'forward, backward and step of a small net':48}{'ms':>9}{'× AdamW':>9}")
    passes = whole_steps(given) if given.device == "cpu" else []
    for row in passes:
        show(row)
    if given.out:
        file = given.out / f"optimizer_speed_{given.shapes}.json"
        found = {"machine": machine(given.device), "shapes": given.shapes, "base_ms": 1e3 * usual(base[0], given)}
        found |= {"rows": rows, "whole_steps": passes}
        content = renewed(json.loads(file.read_text()), found, given.only) if given.only and file.exists() else found
        file.write_text(json.dumps(content, indent=1) + "\n")
        speed_page.write(given.out)


def renewed(content: dict[str, Any], found: dict[str, Any], only: str) -> dict[str, Any]:
    """What was found before, of the same machine, with these rows in the places of those of the methods in ``only``."""
    if content["machine"] != found["machine"]:
        raise SystemExit(f"the others were measured on {content['machine']}: measure all of them")
    for table in ("rows", "whole_steps"):
        now = {row["name"]: row for row in found[table]}
        kept = {row["name"]: row for row in content[table] if row["name"] in now or not asked(row["name"], only)}
        content[table] = list((kept | now).values())
    return content


def usual(step: Callable[[], Any], given: argparse.Namespace) -> float:
    """Seconds of a step, the median of some."""
    return statistics.median(seconds(step, given.device) for _ in range(given.rounds))


if __name__ == "__main__":
    main()
