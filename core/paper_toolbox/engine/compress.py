"""Compress: a run folder becomes a smaller one, with the figures before and after; one that was killed goes on."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from .. import artifact
from ..artifact import Artifact
from ..errors import ArtifactError, GateMissed, Interrupted, NeedError
from ..files import locked, read_json, write_json
from ..host import Host
from ..kit import quant, surgery
from ..provenance import environment
from ..provenance import provenance as made_with
from ..recipe import Choice, Recipe
from .compression import plan as compress_plan
from .compression.before_after import Gates, measure
from .compression.plan import Plan
from .compression.step import Given, Step
from .data.open_data import Batches, Data
from .export import chain, provenance
from .loop.evaluate import evaluate, target_scale
from .loop.keep import clear
from .loop.restore import load_data, load_model, write_calibration
from .progress import Show
from .reports.interval import Interval, interval_of
from .setup.methods import check_needs

STEPS = "steps"  #: beside the plan; gone when the compression is finished


def compress(
    run: Artifact,
    choices: Sequence[Choice],
    out: Path | None,
    host: Host,
    *,
    finetune: Recipe | None = None,
    gates: Gates | None = None,
    batch_size: int = 64,
    show: Show | None = None,
) -> Artifact:
    """Apply ``choices`` in order, fine-tuning as ``finetune`` says after each that changes weights.

    The result and its report are kept even when a gate is missed; then ``GateMissed`` is raised.
    """
    folder = _folder(run, choices, out)
    plan = Plan(run, tuple(choices), finetune, gates or Gates(), batch_size)
    work = _Work(plan, folder, host, show)
    with artifact.created(folder) as new:
        plan.write(new)
    with locked(folder), _cleared(folder):
        return work.do()


def resume(out: Path | None, host: Host, *, accept_changes: bool = False, show: Show | None = None) -> Artifact:
    """Go on with what ``out`` holds, to the same weights and figures as if it had never been stopped."""
    if out is None or not out.is_dir():
        raise ArtifactError(
            f"nothing to resume in {out}" if out else "--resume needs --out FOLDER: the compression to continue"
        )
    with locked(out):
        clear(out)
        if (out / "summary.json").exists():
            return _finished(out)
        plan = compress_plan.read(out, accept_changes)
        return _Work(plan, out, host, show, accept_changes).do()


def _folder(run: Artifact, choices: Sequence[Choice], out: Path | None) -> Path:
    """Where the result goes, beside the run where nothing else is asked for."""
    if not choices:
        raise NeedError("nothing to compress with: name a compressor with --plugin (see `toolbox list compressor`)")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise NeedError("compress works in one process: start it without torchrun or accelerate launch")
    folder = out or artifact.free_name(run.folder.with_name("-".join([run.folder.name, *(c.name for c in choices)])))
    artifact.refuse_existing(folder)
    return folder


@contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """A compression that fails leaves nothing in the way, unless it has trained: then it can go on."""
    try:
        yield
    except BaseException as error:
        if (folder / "summary.json").exists():
            raise
        if not any(folder.glob(f"{STEPS}/*/tuned/metrics.jsonl")):
            shutil.rmtree(folder)
        elif isinstance(error, KeyboardInterrupt):
            command = f"toolbox compress --resume --out {folder}"
            raise Interrupted(f"interrupted; what was trained is kept, continue with: {command}") from None
        raise


def _finished(folder: Path) -> Artifact:
    """The result, nothing of the work left; ``GateMissed`` where it misses one."""
    shutil.rmtree(folder / STEPS, ignore_errors=True)
    (folder / artifact.PLAN).unlink(missing_ok=True)
    report = read_json(folder / "compress.json")
    if missed := report["missed"]:
        line = f"{folder} misses its gates: {'; '.join(missed)} (the report is in {folder / 'compress.json'})"
        raise GateMissed(line, report, folder)
    return Artifact.load(folder)


class _Work:
    """All that a plan needs, loaded and checked before anything is written."""

    def __init__(self, plan: Plan, folder: Path, host: Host, show: Show | None, accept_changes: bool = False) -> None:
        run = plan.run
        self.plan, self.folder = plan, folder
        data, original = load_data(run, host), load_model(run, host)
        self.given = Given(run, data, original, host, plan.finetune, show, accept_changes)
        methods = [_method(choice, host, data) for choice in plan.choices]
        self.steps = [
            Step(self.given, choice, method, folder / STEPS / f"{n}-{choice.name}")
            for n, (choice, method) in enumerate(zip(plan.choices, methods, strict=True), 1)
        ]

    def do(self) -> Artifact:
        """Take the steps that are left, measure, and write the new run folder."""
        plan, given = self.plan, self.given
        model = self._model()
        interval = interval_of(given.original, plan.run.figures[plan.run.task.metric], given.data)
        metadata = provenance(plan.run, plan.choices, plan.finetune, interval)
        before, after = measure(given.original, model, given.data, plan.batch_size, metadata)
        before.pop("interval", None)
        reached = after.pop("interval", None)
        rows = [step.row for step in self.steps]
        report = {"before": before, "after": after, "steps": rows, "missed": plan.gates.missed(before, after)}
        self._write(model, report, reached)
        return _finished(self.folder)

    def _model(self) -> nn.Module:
        """After all steps; those that are done already are passed over."""
        done = next((n for n, step in enumerate(self.steps) if step.row is None), len(self.steps))
        model = self.steps[done - 1].model() if done else copy.deepcopy(self.given.original)
        for step in self.steps[done:]:
            model = step.take(model)
        return model

    def _write(self, model: nn.Module, report: dict[str, Any], interval: Interval | None) -> None:
        """The new run folder; its recipe is the one that trained the model, its chain stands in compress.json."""
        folder, run, finetune = self.folder, self.plan.run, self.plan.finetune
        artifact.write_history(folder, run.history())
        plan = quant.planned(model)
        artifact.write_structure(folder, surgery.edits(model), plan[0].to_json() if plan else None)
        if plan is not None:
            write_calibration(folder, self.given.data.task, plan[1])
        artifact.write_weights(folder, model.state_dict())
        write_json(folder / "compress.json", report | {"finetune": finetune.to_dict() if finetune else None})
        artifact.write_recipe(folder, run.recipe)
        new = _summary(self.plan, model, self.given.data, report) | {"interval": interval}
        artifact.write_summary(folder, run.summary | new)


def _method(choice: Choice, host: Host, data: Data) -> Any:
    if choice.kind != "compressor":
        raise NeedError(
            f"{choice.name} is of kind {choice.kind}; compress takes compressors (see `toolbox list compressor`)"
        )
    method = host.build(choice.name, choice.kind, **choice.fields)
    check_needs(choice, method, data.task, teacher=True)
    return method


def _summary(plan: Plan, model: nn.Module, data: Data, report: dict[str, Any]) -> dict[str, Any]:
    """What is new in summary.json; of an int8 run, the figure that the integer file reaches."""
    run, after = plan.run, report["after"]
    figures = {data.task.metric: after[data.task.metric]}
    if quant.planned(model) is None:
        figures = evaluate(model, Batches(data.validation, 256), data.task, target_scale(data.preprocessing))
    return {
        "stage": "compress",
        "parent": str(run.folder),
        "figures": figures,
        "parameters": after["parameters"],
        "accepted": not report["missed"],
        "plugins": [*run.summary["plugins"], *made_with(plan.choices)],
        "environment": environment(),
        "chain": chain(run, plan.choices, plan.finetune),
    }
