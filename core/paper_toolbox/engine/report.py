"""A run told to people: ``report.html``, one page that needs no network, and ``MODEL_CARD.md``."""

from __future__ import annotations

import json
from typing import Any

import yaml

from ..artifact import Artifact
from ..files import write_text
from ..host import Host
from .reports.outcome import Outcome, outcome
from .reports.pages import rendered
from .reports.passages import passages
from .reports.run_pictures import pictures


def report(run: Artifact, host: Host) -> dict[str, Any]:
    """Write both into the folder of ``run``; the metric with its interval, and where the page is."""
    found = outcome(run, host)
    interval = run.summary.get("interval") or found.interval()  # of an integer file it is measured there
    given = {
        "title": run.folder.name,
        "metric": run.task.metric,
        "unit": _unit(run),
        "interval": interval,
        "figures": run.figures,
        "facts": _facts(run, found),
        "plugins": run.summary["plugins"],
        "compression": _compression(run),
        "steps": [_step(each) for each in run.summary.get("chain", [])],
        "recipe": yaml.safe_dump(run.recipe.to_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None),
        "environment": run.summary["environment"],
        "curve": (run.folder / "learning_curve.png").is_file(),
        "confusions": found.confusions(),
    }
    seen = {"pictures": pictures(run, found), "passages": passages(run, found)}
    write_text(run.folder / "report.html", rendered("run.html", **given, **seen))
    write_text(run.folder / "MODEL_CARD.md", rendered("model_card.md", **given))
    return {"report": str(run.folder / "report.html"), run.task.metric: interval}


def _unit(run: Artifact) -> str:
    return "positions" if run.task.kind == "tokens" else "samples"


def _facts(run: Artifact, found: Outcome) -> list[tuple[str, str]]:
    task, settings = run.task, run.recipe.training
    inputs = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in task.inputs)
    rows = [("data", settings.data), ("task", task.kind), ("inputs", inputs), ("model", settings.model or "")]
    rows += [("parameters", f"{run.summary['parameters']:,}"), (f"validation {_unit(run)}", f"{len(found.targets):,}")]
    if task.kind != "regression":
        rows.append(("calibration error", f"{found.calibration_error():.4f}"))
    if run.structure.get("quantization"):
        rows.append(("answers shown", "of the model before it became integers; the figures are the integer file's"))
    if parent := run.summary.get("parent"):
        rows.append(("made from", parent))
    rows += [("careful", note) for note in run.summary.get("careful", ())]
    return rows


def _compression(run: Artifact) -> list[tuple[str, str, str]]:
    """(figure, before, after) of compress.json; nothing for a model that was only trained."""
    path = run.folder / "compress.json"
    if not path.is_file():
        return []
    kept = json.loads(path.read_text("utf-8"))
    return [
        (name.replace("_", " "), _number(kept["before"][name]), _number(kept["after"][name])) for name in kept["before"]
    ]


def _step(told: dict[str, Any]) -> tuple[str, str, str]:
    """(method, fields, fine-tuning) of one step of a compression."""
    fields = ", ".join(f"{name}={value}" for name, value in told["fields"].items())
    tuned = told.get("finetune")
    return told["name"], fields, f"{tuned['epochs']} epoch{'s' if tuned['epochs'] > 1 else ''}" if tuned else "none"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
