"""How good is each installed optimizer? Eighteen small tasks, the same tuning budget for all, paired seeds.

``python benchmarks/optimizer_quality.py [--only a,b] [--seeds N] [--rates N] [--limit SECONDS] [--out FOLDER]``. Each
method tries step sizes around its default on a seed of its own, then trains from the same weights and batches as all
others. Writes a page, its data as JSON and one picture; ``--render`` writes page and picture from the data that are
there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paper_toolbox as pt
import torch
from paper_toolbox import catalog, needs
from paper_toolbox.errors import ToolboxError
from paper_toolbox.kit.samples import Samples
from paper_toolbox.kit.wrap import Wrapper, named
from scipy.stats import bootstrap, rankdata
from torch import Tensor

with contextlib.redirect_stdout(io.StringIO()):  # one of the tasks reads a poem that prints itself
    from tasks.small import TASKS, Problem

BASE = "adamw"
TUNING_SEED = 1000
LOOK = 5  # steps between two looks at the loss that counts
WAY = 0.9  # the target: that share of the base's way down
PATIENCE = 5  # times the limit of a run, for its first step alone


@dataclass(frozen=True)
class Run:
    """How one training went."""

    final: float
    curve: list[float]  # every LOOK steps
    step_s: float
    cut: bool  # the time limit came first


def train(name: str, task: str, seed: int, factor: float, limit: float) -> Run:
    """Train ``task`` with the method's default step size times ``factor``."""
    make, steps = TASKS[task]
    problem = make(seed)
    method = pt.method(name, "optimizer", **rate(name, factor))
    given = {"model": problem.model, "steps_total": steps, "steps_per_epoch": max(1, steps // 10)}
    optimizer = method.build(list(problem.model.parameters()), **needs.supply(method.build, given))
    curve, began, spent, done = [problem.judge()], time.process_time(), 0.0, 0
    for done in range(1, steps + 1):
        start = time.process_time()
        with contextlib.suppress(Late):  # within a step of very many passes, say
            step(method.closure, optimizer, problem, began + limit)
        spent += time.process_time() - start
        if done == 1 and spent > PATIENCE * limit:
            raise TooSlow(f"one step takes {spent:.0f} s")
        if done % LOOK == 0:
            curve.append(problem.judge())
        if not math.isfinite(curve[-1]) or time.process_time() - began > limit:
            break
    return Run(problem.judge(), curve, spent / done, done < steps)


def rate(name: str, factor: float) -> dict[str, float]:
    """The step size to pass; a method without one has nothing to tune."""
    method = pt.method(name, "optimizer")
    own = getattr(named(method.base) if isinstance(method, Wrapper) and method.lr is None else method, "lr", None)
    return {} if own is None or not hasattr(method, "lr") else {"lr": own * factor}


class Late(Exception):
    """The time for a run is over."""


class TooSlow(RuntimeError):
    """A single step takes longer than all of a run should."""


def step(closure: str, optimizer: Any, problem: Problem, end: float) -> None:
    """One step on a fresh batch, in the way that the method wants; ``end`` is when the run must be over."""
    inputs, targets = problem.batch()

    def loss() -> Tensor:
        if time.process_time() > end:
            raise Late
        return problem.score(problem.model(inputs), targets)

    def gradient() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        return value

    match closure:
        case "none":
            gradient()
            optimizer.step()
        case "gradient":
            optimizer.step(gradient)
        case "loss":
            optimizer.step(loss)
        case _:
            optimizer.step(Samples(problem.model, [(inputs, targets)], problem.score))


def tried(job: tuple[str, str, int, list[float], float]) -> dict[str, Any]:
    """The best step size on the tuning seed, then every seed with it; why not, where a method cannot."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name, task, seeds, factors, limit = job
    found: dict[str, Any] = {"method": name, "task": task}
    try:
        factors = factors if rate(name, 1.0) else [1.0]
        tuned = {factor: train(name, task, TUNING_SEED, factor, limit).final for factor in factors}
        best = min(tuned, key=lambda factor: worst_last(tuned[factor]))
        runs = [train(name, task, seed, best, limit) for seed in range(seeds)]
    except (ToolboxError, RuntimeError, ValueError) as error:  # a method that cannot take a task says so in many ways
        return found | {"error": " ".join(str(error).split())[:200]}
    kept = {"final": [run.final for run in runs], "curves": [run.curve for run in runs], "factor": best}
    return found | kept | {"step_s": float(np.median([r.step_s for r in runs])), "cut": any(r.cut for r in runs)}


def worst_last(x: float) -> float:
    return x if math.isfinite(x) else math.inf


def methods(only: str) -> list[str]:
    """The optimizers asked for, the base always."""
    names = [card.name for card in catalog.cards() if card.kind == "optimizer"]
    asked = only.split(",") if only else names
    return [BASE, *(name for name in names if name in asked and name != BASE)]


def measured(names: list[str], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every method on every task, in as many processes as there are cores."""
    factors = [10 ** (k / 2) for k in range(-1, given.rates - 1)]  # more above than below: the runs are short
    jobs = [(name, task, given.seeds, factors, given.limit) for task in TASKS for name in names]
    with multiprocessing.get_context("forkserver").Pool(os.cpu_count()) as pool:
        for done, found in enumerate(pool.imap_unordered(tried, jobs, chunksize=2), 1):
            if done % (len(jobs) // 10 or 1) == 0:
                print(f"{done} of {len(jobs)}", flush=True)
            yield found


def table(found: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """A row per method, best mean rank first."""
    by = {(each["method"], each["task"]): each for each in found}
    ranks = {task: ranked([by[name, task] for name in names]) for task in TASKS}
    rows = []
    for i, name in enumerate(names):
        own = np.array([ranks[task][i] for task in TASKS])
        low, high = interval(own)
        speed = [ratio(by[name, task], by[BASE, task]) for task in TASKS]
        reached = [steps_to(by[name, task], by[BASE, task], task) for task in TASKS]
        cannot = sum("error" in by[name, task] for task in TASKS)
        row = {"method": name, "rank": float(own.mean()), "low": low, "high": high, "cannot": cannot}
        share = float(np.median(reached))
        row |= {"step": float(np.nanmedian(speed)), "to_target": share if math.isfinite(share) else None}
        rows.append(row | {"ranks": own.tolist(), "cut": sum(by[name, task].get("cut", False) for task in TASKS)})
    return sorted(rows, key=lambda row: row["rank"])


def ranked(found: list[dict[str, Any]]) -> Any:
    """1 is best; what failed or diverged shares the last places."""
    means = [worst_last(float(np.mean(each["final"]))) if "final" in each else math.inf for each in found]
    return rankdata(means)


def interval(values: Any) -> tuple[float, float]:
    """95 % of the mean, over the tasks."""
    if len(set(values)) < 2:
        return float(min(values)), float(max(values))
    ends = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return float(ends.low), float(ends.high)


def ratio(own: dict[str, Any], base: dict[str, Any]) -> float:
    return float(own["step_s"] / base["step_s"]) if "step_s" in own else math.nan


def steps_to(own: dict[str, Any], base: dict[str, Any], task: str) -> float:
    """Steps to the base's target as a share of all steps, mean over the seeds; infinite where it is not reached."""
    shares = []
    for curve, other in zip(own.get("curves", ()), base["curves"], strict=False):
        target = other[0] + WAY * (min(other) - other[0])
        reached = [i for i, x in enumerate(curve) if x <= target]
        shares.append(reached[0] * LOOK / TASKS[task][1] if reached else math.inf)
    return float(np.median(shares)) if shares else math.inf


def finals(found: list[dict[str, Any]], names: list[str]) -> dict[str, dict[str, list[float | None]]]:
    """The final losses by task and method, of all seeds; None for what is not finite."""
    by = {(each["method"], each["task"]): each.get("final", []) for each in found}
    return {task: {name: [x if math.isfinite(x) else None for x in by[name, task]] for name in names} for task in TASKS}


def best(finals: dict[str, list[float | None]], count: int) -> list[str]:
    """The methods with the lowest mean loss."""
    means = {name: np.mean(own) for name, own in finals.items() if own and None not in own}
    return sorted(means, key=lambda name: means[name])[:count]


def spread(finals: list[float | None]) -> str:
    """Mean, and the range over the seeds."""
    known = [x for x in finals if x is not None]
    if not known or len(known) < len(finals):
        return "diverged"
    return f"{np.mean(known):.3g} ({min(known):.3g} … {max(known):.3g})"


def page(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    rows, seconds = found["rows"], found["seconds"]
    options = f"--seeds {found['seeds']} --rates {found['rates']} --limit {found['limit']:g}"
    lines = [
        "# Optimizers on small tasks",
        "",
        f"{len(rows)} methods, {len(found['tasks'])} tasks, {found['seeds']} paired seeds. On a seed of its own each",
        f"method chose among {found['rates']} step sizes, from 0.3 times its default up by factors of 3.2. The rank is",
        "that of the mean final loss on what was held out.",
        f"Small tasks say little about large models. {found['machine']}; {seconds / 60:.0f} minutes.",
        f"Written by `python benchmarks/optimizer_quality.py {options} --out docs`.",
        "",
        "![ranks by task](optimizer_quality.png)",
        "",
        "| method | mean rank (95 %, over tasks) | steps to AdamW's target | a step × AdamW's | cannot | cut off |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        reached = f"{100 * row['to_target']:.0f} %" if row["to_target"] is not None else "not reached"
        rank = f"{row['rank']:.1f} ({row['low']:.1f} … {row['high']:.1f})"
        lines.append(f"| `{row['method']}` | {rank} | {reached} | {row['step']:.1f} | {row['cannot']} | {row['cut']} |")
    lines += [
        "",
        f"*Steps to AdamW's target*: the median over tasks of the share of the steps after which {100 * WAY:.0f} % of",
        "AdamW's way down is done. *cannot*: tasks that the method does not take (targets that are not classes, say),",
        f"or whose first step takes {PATIENCE} times the limit. *cut off*: tasks on which a run met the limit of",
        f"{found['limit']:g} s of computing.",
        "",
        "## Final loss on what was held out",
        "",
        f"Mean, and the range over the {found['seeds']} seeds; where a run was cut off, of the part that was made.",
        "",
        f"| task | `{BASE}` | best | second | third |",
        "|---|---|---|---|---|",
    ]
    for task, own in found["finals"].items():
        cells = [f"`{name}` {spread(own[name])}" for name in best(own, 3)]
        lines.append(f"| {' | '.join([task.replace('_', ' '), spread(own[BASE]), *cells])} |")
    lines.append("")
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], tasks: list[str], file: Path) -> None:
    """Ranks: a row per method, a column per task."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ranks = np.array([row["ranks"] for row in rows])
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.19 * len(rows)), layout="constrained")
    shown = axes.imshow(ranks, aspect="auto", cmap="viridis_r")
    axes.set_yticks(range(len(rows)), [f"{row['method']}  {row['rank']:.1f}" for row in rows], fontsize=7)
    axes.set_xticks(range(len(tasks)), [name.replace("_", " ") for name in tasks], rotation=60, ha="right", fontsize=7)
    figure.colorbar(shown, label="rank (1 is best)", shrink=0.6)
    axes.set_title("Rank by task; methods by their mean rank", fontsize=9)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def machine() -> str:
    """What the figures were measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def main() -> None:
    """Measure, then print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=int, default=5, help="step sizes that each method may try")
    parser.add_argument("--limit", type=float, default=1.5, help="seconds of computing for one run")
    parser.add_argument("--out", type=Path, help="folder for the page, its data and the picture")
    parser.add_argument("--render", action="store_true", help="measure nothing: write page and picture anew")
    given = parser.parse_args()
    if given.render and given.out:
        write(json.loads((given.out / "optimizer_quality.json").read_text()), given.out)
        return
    began, names = time.perf_counter(), methods(given.only)
    found = list(measured(names, given))
    rows = table(found, names)
    kept = {"machine": machine(), "seconds": time.perf_counter() - began, "tasks": list(TASKS), "rows": rows}
    kept |= {"seeds": given.seeds, "rates": given.rates, "limit": given.limit}
    kept |= {"finals": finals(found, names), "errors": [each for each in found if "error" in each]}
    if given.out is None:
        print(page(kept))
        return
    (given.out / "optimizer_quality.json").write_text(json.dumps(kept, indent=1) + "\n")
    write(kept, given.out)


def write(kept: dict[str, Any], out: Path) -> None:
    """The page and its picture."""
    (out / "optimizer_quality.md").write_text(page(kept))
    picture(kept["rows"], kept["tasks"], out / "optimizer_quality.png")


if __name__ == "__main__":
    main()
