"""``toolbox check``: does a plugin keep the contract of its kind?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import output
from ..options import Json, complete_method


def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH", help="An installed method, or a plugin's folder.", autocompletion=complete_method
        ),
    ],
    as_json: Json = False,
) -> None:
    """Run the conformance suite on a plugin, in a process of its own."""
    from paper_toolbox import checker

    report: dict[str, Any] = checker.check(name)
    if as_json:
        output.print_json(report)
    else:
        _show(report)
    if not report["passed"]:
        raise typer.Exit(4)


def _show(report: dict[str, Any]) -> None:
    output.print_table(
        ("check", "result", "message"), [(t["name"], t["outcome"], t["message"]) for t in report["tests"]]
    )
