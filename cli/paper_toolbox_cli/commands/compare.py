"""``toolbox compare``: does a method help? The same recipe, several methods, paired seeds, a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import output
from ..options import Json, Out, Set, complete_method

Compared = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        "-p",
        metavar="NAME[+NAME]",
        help="A method, or several together as in adamp+max_sup; the first named is what the others are compared with.",
        autocompletion=complete_method,
    ),
]


def compare(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="YAML recipe; options win over it.")] = None,
    plugin: Compared = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each method, paired by seed.")] = 10,
    tune: Annotated[
        int, typer.Option(min=0, help="Tries for each method's fields before; 0 takes them as they are.")
    ] = 0,
    stop_early: Annotated[
        bool, typer.Option("--stop-early", help="Look now and then, and stop when all is decided.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings at once; as many as cores by default.")] = None,
    set_: Set = None,
    model: Annotated[str | None, typer.Option(metavar="SRC", help="As for train.")] = None,
    data: Annotated[str | None, typer.Option(metavar="SRC", help="As for train.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a batch.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first of the seeds.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out, with more --seeds perhaps.")] = False,
    as_json: Json = False,
) -> None:
    """Compare methods with the first one named, over paired seeds: a verdict, a table and a report."""
    from paper_toolbox import artifact
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import read_file

    if not resume:
        artifact.refuse_existing(out)
    flags = {"model": model, "data": data, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    flags |= {"precision": precision, "device": device}
    from paper_toolbox.engine.compare import compare as compare_
    from paper_toolbox.engine.comparison.comparison import Comparison, methods_of
    from paper_toolbox.engine.comparison.report import report

    recipes = methods_of(Host(), read_file(recipe) if recipe else None, plugin or (), set_ or (), flags)
    comparison = Comparison(recipes, seeds, tune, stop_early)
    folder = out or artifact.free_name(Path("runs") / "compare")
    compare_(comparison, folder, jobs=jobs, resume=resume)
    _show(report(comparison, folder), folder, as_json)


def _show(rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    from paper_toolbox.engine.comparison.report import decimals, shown

    if as_json:
        output.print_json({"folder": str(folder), "rows": rows})
        return
    columns = {"method": "method", "value": "mean ± sd", "gain": "gain", "interval": "95 %", "p": "p"}
    columns |= {"verdict": "verdict", "step": "ms a step", "memory": "MiB"}
    cells = [shown(row, decimals(rows)) for row in rows]
    output.print_table(tuple(columns.values()), [tuple(each[key] for key in columns) for each in cells])
    output.print_figures({"report": str(folder / "report.html")})
