"""``toolbox new``: the four files of a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import output
from ..options import Json


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="snake_case, as it will be called with --plugin.")],
    kind: Annotated[
        Literal[
            "optimizer",
            "normalizer",
            "loss",
            "compressor",
            "attributor",
            "regimen",
            "model",
            "diagnostic",
            "solver",
            "observer",
        ],
        typer.Option(help="What the method is."),
    ],
    folder: Annotated[Path, typer.Option("--in", metavar="FOLDER", help="Where the plugin's folder goes.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a plugin that works: change it into your paper's method."""
    from paper_toolbox import scaffold

    paths = scaffold.new(name, kind, folder)
    if as_json:
        output.print_json([str(path) for path in paths])
        return
    for path in paths:
        print(path)
    print(f"next: pip install -e {paths[0].parent} && toolbox check {name}")
