"""How often does a comparison call a method different from itself, and how often does it find a small difference?

``python benchmarks/compare_null.py --out docs`` trains one method under several labels: the same splits of the data,
other weights and other orders of the batches, so that nothing differs but chance. Each comparison is judged as
`toolbox compare` judges it. ``--render`` writes the page anew from what was measured.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from paper_toolbox.engine.comparison.verdicts import ALPHA, Verdict, planned, verdicts
from paper_toolbox.engine.data.open_data import Data, open_data
from paper_toolbox.engine.loop.fit import Fit
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.devices import accelerator_of
from paper_toolbox.engine.train import start
from paper_toolbox.host import Host
from paper_toolbox.recipe import Recipe, assemble
from scipy import stats

NAME = "compare_null"
DATA, METHOD = "wine", "adamw"
FLAGS = {"data": DATA, "model": "mlp?hidden=8&depth=1", "epochs": 4, "batch_size": 32, "device": "cpu"}
SEEDS = (5, 10, 20)
FIGURES = {"accuracy": True, "loss": False}  # and whether higher is better
RATES = {"first": 0.02, "itself": 0.02, "again": 0.02, "slower": 0.018}
FAR = 10_000_000  # between the seeds of two labels
Values = dict[str, list[float]]


@functools.cache
def host() -> Host:
    return Host()


@functools.cache
def recipe(rate: float) -> Recipe:
    return assemble(host(), None, [METHOD], [f"{METHOD}.lr={rate}", "keep=last"], FLAGS)


@functools.cache
def accelerator() -> Any:
    return accelerator_of(recipe(RATES["first"]))


def trained(data: Data, rate: float, seed: int) -> dict[str, float]:
    """The figures of one run on a split that others share; ``seed`` draws the weights and the order of batches."""
    given = recipe(rate).to_dict() | {"seed": seed}
    session = start(Recipe.from_dict(given), host(), data, None, accelerator())
    return Fit(session, None, Silent()).run()


def repeated(number: int) -> dict[str, Any]:
    """One comparison with the largest number of seeds, judged with each number and figure."""
    torch.set_num_threads(1)
    seeds = range(number * max(SEEDS), (number + 1) * max(SEEDS))
    runs: dict[str, list[dict[str, float]]] = {label: [] for label in RATES}
    for seed in seeds:
        data = open_data(DATA, seed=seed, host=host())
        for i, (label, rate) in enumerate(RATES.items()):
            runs[label].append(trained(data, rate, seed + i * FAR))
    values = {name: {label: [r[name] for r in own] for label, own in runs.items()} for name in FIGURES}
    judged = {f"{name} {n}": outcomes(values[name], higher, n) for name, higher in FIGURES.items() for n in SEEDS}
    gains = {name: np.subtract(values[name]["slower"], values[name]["first"]).tolist() for name in FIGURES}
    return {"judged": judged, "gains": gains}


def outcomes(values: Values, higher: bool, count: int) -> dict[str, Any]:
    """What is said of these values with the first ``count`` seeds."""

    def of(*labels: str, looks: tuple[int, ...] = (), seen: int = count) -> dict[str, Verdict]:
        return verdicts({label: values[label][:seen] for label in ("first", *labels)}, higher, looks)

    def early(label: str) -> tuple[str, int]:
        looks = tuple(planned(count, 1))
        for seen in looks:
            if (said := of(label, looks=looks, seen=seen)[label].outcome) in ("better", "worse"):
                return said, seen
        return said, count

    both, slower = of("itself", "again"), of("slower")["slower"]
    (null, _), (found, used) = early("itself"), early("slower")
    alone = of("itself")["itself"]
    return {
        "one": different(alone.outcome),
        "family": any(different(v.outcome) for v in both.values()),
        "early": different(null),
        "outside": not alone.low <= 0 <= alone.high,
        "equal": alone.outcome == "the same",
        "ties": float(np.mean(np.equal(values["first"][:count], values["itself"][:count]))),
        "power": slower.outcome,
        "power_early": found,
        "used": used,
    }


def different(outcome: str) -> bool:
    return outcome in ("better", "worse")


def measured(repetitions: int) -> Iterator[dict[str, Any]]:
    """Every repetition, in as many processes as there are cores."""
    with multiprocessing.get_context("forkserver").Pool(os.cpu_count()) as pool:
        for done, found in enumerate(pool.imap_unordered(repeated, range(repetitions)), 1):
            if done % 20 == 0:
                print(f"{done} of {repetitions}", flush=True)
            yield found


def counted(found: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What the page tells, as JSON."""
    rows = []
    for name in FIGURES:
        gains = np.array([each["gains"][name] for each in found]).ravel() * (1 if FIGURES[name] else -1)
        effect = float(gains.mean() / gains.std(ddof=1))
        for n in SEEDS:
            own = [each["judged"][f"{name} {n}"] for each in found]
            row: dict[str, Any] = {"figure": name, "seeds": n, "looks": planned(n, 1), "effect": effect}
            row |= {key: sum(each[key] for each in own) for key in ("one", "family", "early", "outside", "equal")}
            row |= {
                f"{key}_{side}": sum(each[key] == side for each in own)
                for key in ("power", "power_early")
                for side in ("better", "worse")
            }
            row |= {"ties": float(np.mean([each["ties"] for each in own]))}
            row |= {"used": float(np.mean([each["used"] for each in own]))}
            rows.append(row)
    about = {"repetitions": len(found), "method": METHOD, "rates": RATES, "recipe": FLAGS, "level": ALPHA}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    return about | {"rows": rows, "machine": machine, "minutes": round(seconds / 60, 1)}


def page(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    repetitions, rates = found["repetitions"], found["rates"]
    trainings = repetitions * len(rates) * max(row["seeds"] for row in found["rows"])
    given = f"{found['recipe']['data']}, {found['recipe']['model']}, {found['recipe']['epochs']} epochs"
    about = (
        f"Written by `python benchmarks/{NAME}.py --out docs`: {trainings:,} trainings of `{found['method']}` "
        f"({given}), {repetitions} comparisons for each line. The runs of a pair share the split of the data; their "
        "weights and their orders of the batches differ, and nothing else. What is called better or worse is called "
        f"so wrongly, which must happen in at most {found['level']:.0%} of all comparisons. In brackets 95 % "
        f"intervals (Clopper and Pearson). {found['machine']}; {found['minutes']:g} minutes."
    )
    lines = [
        "# The same method against itself",
        "",
        wrapped(about),
        "",
        "| figure | seeds | equal pairs | called different | one of two called different | with `--stop-early` "
        "| 0 outside the interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        shares = (share(row[key], repetitions) for key in ("one", "family", "early", "outside"))
        lines.append(f"| {row['figure']} | {row['seeds']} | {row['ties']:.0%} | {' | '.join(shares)} |")
    small = (
        f"The same method with a step size of {rates['slower']} against {rates['first']}. The effect d is that of all "
        "pairs together; *expected* is the power that the usual formula gives for it. Of single comparisons the effect "
        "is known roughly at best, and so is the number of seeds that an undecided one is told."
    )
    lines += [
        "",
        wrapped(
            "The 95 % interval leaves out 0 in 5 % of all cases where it is exact. With 5 seeds nothing can be called "
            "different: the smallest p of the test is 2/32."
        ),
        "",
        "## A small difference",
        "",
        wrapped(small),
        "",
        "| figure | seeds | effect d | called worse | called better | expected | early: called worse | seeds used |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [powerful(row, repetitions, found["level"]) for row in found["rows"]]
    return "\n".join([*lines, ""])


def powerful(row: dict[str, Any], repetitions: int, level: float) -> str:
    """A line of the second table."""
    effect, n = abs(row["effect"]), row["seeds"]
    expected = float(stats.norm.sf(stats.norm.ppf(1 - level / 2) - effect * math.sqrt(n)))
    good, bad = (share(row[f"power_{side}"], repetitions) for side in ("worse", "better"))
    early = share(row["power_early_worse"], repetitions)
    return (
        f"| {row['figure']} | {n} | {row['effect']:+.2f} | {good} | {bad} | {expected:.0%} | {early} "
        f"| {row['used']:.1f} |"
    )


def share(count: int, total: int) -> str:
    """A share with its interval."""
    ends = stats.binomtest(count, total).proportion_ci(method="exact")
    return f"{count / total:.1%} ({ends.low:.1%} … {ends.high:.1%})"


def wrapped(text: str) -> str:
    """A paragraph; no line begins within a word."""
    return fill(text, 120, break_on_hyphens=False, break_long_words=False)


def main() -> None:
    """Measure, or only write the page; then print or keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--out", type=Path, help="folder for the page and its data")
    parser.add_argument("--render", action="store_true", help="only write the page, from the data in --out")
    given = parser.parse_args()
    began = time.perf_counter()
    if given.render:
        found = json.loads((given.out / f"{NAME}.json").read_text("utf-8"))
    else:
        found = counted(list(measured(given.repetitions)), time.perf_counter() - began)
        found["minutes"] = round((time.perf_counter() - began) / 60, 1)
    if given.out is None:
        print(page(found))
        return
    (given.out / f"{NAME}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (given.out / f"{NAME}.md").write_text(page(found), "utf-8")


if __name__ == "__main__":
    main()
