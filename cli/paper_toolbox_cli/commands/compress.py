"""``toolbox compress``: a run folder becomes a smaller one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from paper_toolbox.errors import GateMissed, ParamError

from .. import output
from ..options import Json, Out, Plugin, Set

if TYPE_CHECKING:
    from paper_toolbox.artifact import Artifact
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import Recipe

ROWS = ("accuracy", "rmse", "precision", "parameters", "nonzero", "macs", "onnx_bytes", "latency_ms")


def compress(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder of `toolbox train` or `toolbox compress`.")
    ] = None,
    plugin: Plugin = None,
    set_: Set = None,
    finetune: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Recipe to fine-tune with after each step.")
    ] = None,
    finetune_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs after each step; the run's own recipe if none.")
    ] = 0,
    max_drop: Annotated[
        float | None, typer.Option(min=0, help="Gate: accuracy lost at most, 0.01 is one point; rmse: relative growth.")
    ] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Gate: latency before / after at least.")] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Gate: ONNX file at most, as 500k or 2M.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of the batch whose latency is measured.")] = 64,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the compression in --out.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although plugins changed since.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the model of a run smaller or faster, by one method or a chain."""
    if resume and (run or plugin or set_ or finetune or finetune_epochs or max_drop or min_speedup or max_size):
        raise ParamError("--resume continues the compression in --out as it was begun: give it no run and no options")
    if run is None and not resume:
        raise typer.BadParameter("name the run folder to make smaller", param_hint="RUN")
    from paper_toolbox.artifact import refuse_existing
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import assemble

    if not resume:
        refuse_existing(out)
    host = Host()
    try:
        if run is None:
            smaller = _go_on(out, host, accept_changes)
        else:
            gates = {"max_drop": max_drop, "min_speedup": min_speedup, "max_size": _bytes(max_size)}
            choices = assemble(host, None, plugin or (), set_ or (), {}).plugins
            smaller = _begin(run, choices, out, host, (finetune, finetune_epochs), gates, batch_size)
    except GateMissed as missed:
        if "after" in missed.report:
            _show(missed.report, missed.folder, as_json)
        raise
    from paper_toolbox.engine.report import report
    from paper_toolbox.files import read_json

    report(smaller, host)
    _show(read_json(smaller.folder / "compress.json"), smaller.folder, as_json)


def _go_on(out: Path | None, host: Host, accept_changes: bool) -> Artifact:
    from paper_toolbox.engine.compress import resume

    return resume(out, host, accept_changes=accept_changes)


def _begin(
    run: Path, choices: Any, out: Path | None, host: Host, tuning: tuple[Path | None, int], gates: Any, batch_size: int
) -> Artifact:
    from paper_toolbox.artifact import Artifact

    start = Artifact.load(run)
    recipe = _finetuning(start, *tuning, host)

    from paper_toolbox.engine.compress import compress as compress_
    from paper_toolbox.engine.compression.before_after import Gates

    return compress_(start, choices, out, host, finetune=recipe, gates=Gates(**gates), batch_size=batch_size)


def _finetuning(run: Artifact, recipe: Path | None, epochs: int, host: Any) -> Recipe | None:
    """The recipe named, or the optimizer and losses of the run itself; None when no fine-tuning is asked for."""
    from paper_toolbox.recipe import assemble, read_file

    if recipe is None and not epochs:
        return None
    if recipe is not None:
        chosen = assemble(host, read_file(recipe), (), (), {"epochs": epochs or None})
    else:
        training = dataclasses.replace(run.recipe.training, epochs=epochs)
        chosen = dataclasses.replace(run.recipe, training=training)
    kept = tuple(c for c in chosen.plugins if c.kind in ("optimizer", "loss"))
    return dataclasses.replace(chosen, plugins=kept)


def _show(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        output.print_json({"run": str(folder), **report})
        return
    before, after = report["before"], report["after"]
    rows = [
        (key, *map(_cell(key), (before[key], after[key])), _change(key, before, after)) for key in ROWS if key in before
    ]
    output.print_table(("figure", "before", "after", "change"), rows)
    print(f"run  {folder}")
    if after["latency_ms"] > before["latency_ms"]:
        print("note: it is slower than before; --min-speedup makes that an error")


def _cell(key: str) -> Callable[[Any], str]:
    return output.size if key == "onnx_bytes" else output.cell


def _change(key: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """A difference for the metric, how many times less for what costs."""
    if key in ("accuracy", "rmse"):
        return f"{after[key] - before[key]:+.4f}"
    return f"{before[key] / after[key]:.2f}× less" if key != "precision" and after[key] else ""


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    units = {"k": 10**3, "m": 10**6, "g": 10**9}
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in units else (text, "")
    try:
        return int(float(number) * units.get(unit, 1))
    except ValueError:
        raise ParamError(f"--max-size {text!r}: write bytes, as 500000, 500k or 2M") from None
