"""``toolbox train``: a recipe becomes a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import output
from ..options import Json, Out, Plugin, Set, ValidationData
from .data import show

if TYPE_CHECKING:
    from paper_toolbox.artifact import Artifact
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import Recipe


def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="YAML recipe; options win over it.")] = None,
    plugin: Plugin = None,
    set_: Set = None,
    model: Annotated[
        str | None, typer.Option(metavar="SRC", help="mlp, cnn, vit, gpt, module:function, hf:NAME …")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SRC", help="digits, folder:PATH, csv:PATH?target=COLUMN …")
    ] = None,
    validation_data: ValidationData = None,
    check_data: Annotated[
        bool,
        typer.Option(
            "--check-data",
            help="Before training, report what is wrong with the data: errors end it, warnings do not. "
            "Kept as data_report.json. `toolbox data SRC` reports and trains nothing.",
        ),
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a batch, over all processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the weights, the order.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    teacher: Annotated[Path | None, typer.Option(metavar="RUN", help="Run folder of a model to learn from.")] = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although plugins or the number of processes changed.")
    ] = False,
    explain_config: Annotated[
        bool, typer.Option(help="Print each value and where it comes from; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model with the methods named."""
    from paper_toolbox.artifact import refuse_existing
    from paper_toolbox.errors import ParamError
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import assemble, read_file

    flags = {"model": model, "data": data, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    flags |= {"precision": precision, "device": device, "teacher": str(teacher) if teacher else None}
    flags |= {"validation_data": validation_data}
    if resume and (recipe or plugin or set_ or check_data or any(value is not None for value in flags.values())):
        raise ParamError("--resume continues the run in --out as its own recipe says: give it no recipe and no options")
    first = os.environ.get("RANK", "0") == "0"  # of several processes, one looks and speaks
    if first and not resume:
        refuse_existing(out)
    host = Host()
    chosen = assemble(host, read_file(recipe) if recipe else None, plugin or (), set_ or (), flags)
    if explain_config:
        _explain(chosen, as_json)
        return
    found = _checked(chosen, host, as_json) if check_data and first else None
    from paper_toolbox.engine.train import train as train_

    run = train_(chosen, out, host, resume=resume, accept_changes=accept_changes, data_report=found)
    if not first:
        return
    from paper_toolbox.engine.report import report

    report(run, host)
    _show(run, found, as_json)


def _show(run: Artifact, data_report: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        more = {"data_report": data_report} if data_report else {}
        output.print_json({"run": str(run.folder), **run.summary, **more})
    else:
        output.print_figures({"run": str(run.folder), **run.figures, "parameters": run.summary["parameters"]})


def _checked(chosen: Recipe, host: Host, as_json: bool) -> dict[str, Any]:
    """The report on the data, shown; with --json only where its errors end the command, which prints one document."""
    from paper_toolbox.engine.data.check import check_data, refuse_errors

    settings = chosen.training
    found = check_data(
        settings.data,
        host,
        seed=settings.seed,
        validation=settings.validation,
        validation_data=settings.validation_data,
    )
    if not as_json or found["errors"]:
        show(found, as_json)
    refuse_errors(found)
    return found


def _explain(chosen: Recipe, as_json: bool) -> None:
    from paper_toolbox.recipe import explain

    rows = explain(chosen)
    if as_json:
        output.print_json([{"name": n, "value": v, "origin": o} for n, v, o in rows])
    else:
        output.print_table(("setting", "value", "from"), rows)
