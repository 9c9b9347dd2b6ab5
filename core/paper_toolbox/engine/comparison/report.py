"""What a comparison found: one HTML page without network, JSON, CSV, and its pictures."""

from __future__ import annotations

import base64
import csv
import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...files import read_json, write_json, write_text
from ...provenance import environment
from ..reports.pages import rendered
from .comparison import Comparison, judged, values_of
from .pictures import Row, curves, gains, pareto
from .verdicts import ALPHA, FEWEST, Verdict

METRICS = {"rmse": "RMSE"}  # how they begin a sentence
TITLED = 8  # methods that a title names
DECISIVE = 6  # pairs with which the sign-flip test can reach 5 % at all


def report(comparison: Comparison, out: Path) -> list[Row]:
    """Write ``report.html``, ``comparison.json``, ``comparison.csv`` and the pictures; the rows of the table."""
    found = summary(comparison, _looks(comparison, out))
    rows, metric = found["rows"], found["metric"]
    write_json(out / "comparison.json", found)
    write_text(out / "comparison.csv", _csv(comparison))
    gains(rows, metric, out / "gains.png")
    curves(comparison, metric, out / "curves.png")
    pareto(rows, comparison, metric, found["higher_is_better"], out / "pareto.png")
    write_text(out / "report.html", _page(comparison, found, out))
    return list(rows)


def summary(comparison: Comparison, looks: list[int]) -> dict[str, Any]:
    """All of it but the single runs, as comparison.json holds it; ``looks``: with how many seeds verdicts were told."""
    rows, training = table(comparison), next(iter(comparison.recipes.values())).training
    about = next(r for own in comparison.results.values() for r in own.values() if "value" in r)
    kept = {name: getattr(training, name) for name in ("data", "model", "epochs", "batch_size", "keep")}
    kept |= {name: about[name] for name in ("metric", "higher_is_better")}
    kept |= {"tune": comparison.tune, "stop_early": comparison.stop_early, "seeds": comparison.seeds}
    level = min(1.0, ALPHA * max(1, sum(n >= DECISIVE for n in looks)))
    machine = environment() | {"cores": str(os.cpu_count()), "trainings at once": str(comparison.jobs)}
    kept |= {"looks": looks, "level": level, "rows": rows}
    kept |= {"tuned": {label: tuned(comparison.recipes[label]) for label in comparison.trials}}
    return kept | {"trials": comparison.trials, "environment": machine}


def _looks(comparison: Comparison, out: Path) -> list[int]:
    """With how many seeds verdicts were told so far, this time included; planned looks are paid for already."""
    seeds = max(len(own) for own in comparison.results.values())
    file = out / "comparison.json"
    before = read_json(file).get("looks", []) if file.is_file() and not comparison.stop_early else []
    return sorted({*before, seeds})


def table(comparison: Comparison) -> list[Row]:
    """A row per method, the first on top: numbers as they are."""
    values, _ = values_of(comparison)
    verdicts = judged(comparison)
    rows = []
    for label, own in values.items():
        results = [r for r in comparison.results[label].values() if "value" in r]
        row: Row = {"method": label, "seeds": len(own), "failed": len(own) - len(results)}
        row |= {"mean": _mean(own), "std": float(np.nanstd(own, ddof=1)) if len(results) > 1 else None}
        for key in ("step_s", "memory"):
            known = [r[key] for r in results if r[key] is not None]
            row[key] = float(np.median(known)) if known else None
        rows.append(row | _of_verdict(verdicts.get(label)))
    return rows


def _mean(values: list[float]) -> float | None:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else None


def _of_verdict(verdict: Verdict | None) -> Row:
    names = {"gain": "mean", "low": "low", "high": "high", "p": "p", "effect": "effect"}
    if verdict is None:
        return {"verdict": "the first", **dict.fromkeys(names), "more": None}
    numbers = {key: getattr(verdict, name) for key, name in names.items()}
    finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    return {"verdict": verdict.outcome, **finite, "more": verdict.more}


def said(row: Row) -> str:
    """The verdict in words."""
    failed = f"failed with {row['failed']} of {row['seeds']} seeds"
    if row["verdict"] == "failed":
        return failed
    if row["verdict"] == "the first":
        return f"the first, {failed}" if row["failed"] else "the first"
    if row["verdict"] == "the same":
        return f"undecided: equal in all {row['seeds']} runs"
    if row["verdict"] == "no verdict":
        return "no verdict: the first failed"
    if row["verdict"] != "undecided":
        return str(row["verdict"])
    if more := row["more"]:
        return f"undecided: about {more} more seed{'s' if more > 1 else ''} needed"
    return "undecided: no difference worth more seeds"


def sentence(found: dict[str, Any]) -> str:
    """What was found, in one sentence."""
    rows, by = found["rows"], dict[str, list[str]]()
    for row in rows[1:]:
        by.setdefault(row["verdict"], []).append(row["method"])
    first = rows[0]["method"]
    words = {
        "better": f"better than {first}",
        "worse": f"worse than {first}",
        "undecided": "undecided",
        "the same": f"equal to {first} in every run",
        "failed": "without a result",
        "no verdict": f"without a verdict, since {first} failed with {rows[0]['failed']} of {rows[0]['seeds']}",
    }
    told = "; ".join(f"{', '.join(by[verdict])} {words[verdict]}" for verdict in words if verdict in by)
    seeds, level = rows[0]["seeds"], found["level"]
    again = len(found["looks"]) > 1 and level > ALPHA
    looked = f", since it was looked at with {' and '.join(map(str, found['looks']))} seeds" if again else ""
    start = f"{METRICS.get(found['metric'], found['metric'].capitalize())} with {seeds} seeds: {told}"
    if seeds < (least := math.ceil(1 + math.log2((len(rows) - 1) / ALPHA))):
        return f"{start}. A verdict on {len(rows) - 1} takes {least} seeds at least."
    return f"{start} (an error in any of these has a probability of at most {level:.0%}{looked})."


def _csv(comparison: Comparison) -> str:
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    names = ("metric", "value", "step_s", "memory", "failed")
    lines.writerow(["method", "seed", *names])
    for label, recipe in comparison.recipes.items():
        for seed, r in sorted(comparison.results[label].items()):
            lines.writerow([label, recipe.training.seed + seed, *(r.get(key, "") for key in names)])
    return written.getvalue()


def _page(comparison: Comparison, found: dict[str, Any], out: Path) -> str:
    failures = [
        f"{label}, seed {comparison.recipes[label].training.seed + s}: {r['failed']}"
        for label, own in comparison.results.items()
        for s, r in own.items()
        if "failed" in r
    ]
    places, names = decimals(found["rows"]), list(comparison.recipes)
    named = " · ".join(names) if len(names) <= TITLED else f"{names[0]} and {len(names) - 1} others"
    return rendered(
        "compare.html",
        found=found,
        fewest=FEWEST,
        metric=METRICS.get(found["metric"], found["metric"].capitalize()),
        title=f"{named} on {found['data']}",
        summary=sentence(found),
        first=found["rows"][0]["method"],
        rows=[shown(row, places) for row in found["rows"]],
        pictures={name: _inline(out / f"{name}.png") for name in ("gains", "curves", "pareto")},
        failures=failures,
        recipes=[(label, _yaml(recipe)) for label, recipe in comparison.recipes.items()],
        machine=", ".join(f"{k} {v}" for k, v in found["environment"].items()),
    )


def decimals(rows: list[Row]) -> int:
    """As many as a value of this size is worth: 4 below 10, one less for each power of ten."""
    largest = max(abs(row["mean"]) for row in rows if row["mean"] is not None)
    return max(0, 4 - max(0, math.floor(math.log10(largest)))) if largest else 4


def shown(row: Row, places: int = 4) -> dict[str, Any]:
    """The cells as text, with so many decimal places."""
    cells: dict[str, Any] = {"method": row["method"], "verdict": said(row), "seeds": row["seeds"]}
    cells["class"] = row["verdict"].replace(" ", "-")
    spread = "" if row["std"] is None else f" ± {row['std']:.{places}f}"
    cells["value"] = "" if row["mean"] is None else f"{row['mean']:.{places}f}{spread}"
    told = row["gain"] is not None
    cells["gain"] = f"{row['gain']:+.{places}f}" if told else ""
    cells["interval"] = "" if row["low"] is None else f"{row['low']:+.{places}f} … {row['high']:+.{places}f}"
    cells["p"] = "" if row["p"] is None else f"{row['p']:.3f}" if row["p"] >= 0.001 else "< 0.001"
    cells["effect"] = f"{row['effect']:+.2f}" if row["effect"] is not None else ""
    cells["step"] = f"{1e3 * row['step_s']:.2f}" if row["step_s"] is not None else ""
    cells["memory"] = f"{row['memory'] / 2**20:.2f}" if row["memory"] is not None else ""
    return cells


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def tuned(recipe: Any) -> str:
    """The numbers of a recipe's methods, as short as they can be told."""
    kept = {
        f"{c.name}.{k}": float(f"{v:.3g}") for c in recipe.plugins for k, v in c.fields.items() if isinstance(v, float)
    }
    return ", ".join(f"{k}={v:g}" for k, v in kept.items())


def _yaml(recipe: Any) -> str:
    return str(yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None))
