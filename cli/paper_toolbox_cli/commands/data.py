"""``toolbox data``: what a data source holds, and what is wrong with it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import output
from ..options import Json, ValidationData


def data(
    source: Annotated[str, typer.Argument(metavar="SRC", help="As --data of train: digits, csv:PATH?target=COLUMN …")],
    validation: Annotated[float, typer.Option(help="Share held out.")] = 0.2,
    validation_data: ValidationData = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Look at data as `train --check-data` does, and train nothing: exit status 1 where training would refuse it."""
    from paper_toolbox.engine.data.check import check_data, refuse_errors
    from paper_toolbox.host import Host

    found = check_data(source, Host(), seed=seed, validation=validation, validation_data=validation_data)
    show(found, as_json)
    refuse_errors(found)


def show(report: dict[str, Any], as_json: bool) -> None:
    """The figures, the classes, and the findings in words."""
    if as_json:
        output.print_json(report)
        return
    about = {"data": report["data"], "validation data": report["validation_data"] or "a share of the data"}
    about |= {"samples": report["samples"], "guessing": report["guessing"], **report.get("targets", {})}
    twice = report["twice"]
    about["copies"] = {
        "in training": twice["training"],
        "in validation": twice["validation"],
        "across": twice["across"],
    }
    output.print_figures(about)
    if rows := report.get("classes"):
        output.print_table(("class", "training", "validation"), [tuple(row.values()) for row in rows])
    if rows := report["not_finite"]:
        output.print_table(("column", "NaN or empty", "infinite"), [tuple(row.values()) for row in rows])
    found = [(each["level"], each["message"]) for each in report["findings"]] or [("none", "nothing wrong found")]
    output.print_table(("finding", "what it is"), found)
