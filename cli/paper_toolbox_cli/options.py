"""Options that several commands share, and the completion of plugin and field names from metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from paper_toolbox import catalog


def complete_method(incomplete: str) -> list[tuple[str, str]]:
    """Installed methods whose name begins with ``incomplete``."""
    return [(card.name, card.summary) for card in catalog.cards() if card.name.startswith(incomplete)]


def complete_field(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """``NAME.FIELD=`` of the methods named with --plugin so far, else of all."""
    chosen = {name.split(":")[-1] for name in ctx.params.get("plugin") or ()}
    cards = [card for card in catalog.cards() if not chosen or card.name in chosen]
    rows = [(f"{card.name}.{row[0]}=", row[3]) for card in cards for row in card.fields()]
    return [row for row in rows if row[0].startswith(incomplete)]


Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", "-p", metavar="[KIND:]NAME", help="A method; repeat for several.", autocompletion=complete_method
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME.FIELD=VALUE",
        help="A field of a method, or a setting.",
        autocompletion=complete_field,
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="PATH", help="Where to write; must not exist.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `toolbox train` or `toolbox compress`.")]
ValidationData = Annotated[
    str | None,
    typer.Option("--validation-data", metavar="SRC", help="Data source to validate on, instead of a share of --data."),
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="SRC", help="Data source; none takes the run's own validation part.")
]
