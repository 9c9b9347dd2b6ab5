"""``toolbox why``: do methods go together, and why not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import output
from ..options import Json, Set, complete_method


def why(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME+NAME…]",
            help="Methods, joined by + or not; one alone: what it does not go with.",
            autocompletion=complete_method,
        ),
    ] = None,
    set_: Set = None,
    model: Annotated[str | None, typer.Option(metavar="SRC", help="As for train.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SRC", help="As for train; digits, or diabetes where values are wanted.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Train every pair (of NAME) with all that is installed: pairs.md, pairs.json."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether methods go together, and why not; by what decides before a training, which is not begun."""
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import assemble

    host = Host()
    words = [word for name in names or () for word in name.split("+")]
    recipe = assemble(host, None, words, set_ or (), {"model": model, "data": data})
    if out is not None:
        _write(out, [choice.name for choice in recipe.plugins], as_json)
        return
    from paper_toolbox.engine.why import Why

    found = Why(recipe, host, given="data" in recipe.origins).answer()
    if as_json:
        output.print_json(found)
    else:
        _show(found)


def _write(out: Path, names: list[str], as_json: bool) -> None:
    from paper_toolbox.engine.compatibility.page import figures
    from paper_toolbox.engine.compatibility.pairs import write
    from paper_toolbox.engine.progress import shown

    content = write(out, names, shown())
    if as_json:
        output.print_json(content)
    else:
        output.print_figures(figures(content) | {"table": str(out / "pairs.md")})


def _show(found: dict[str, Any]) -> None:
    for method in found["methods"]:
        told = f": {_verdict(method)}" if method["lines"] else ""
        print(f"{method['name']} ({method['kind']}){told}")
        for word, told in (("", method["traits"]), ("asks for ", method["needs"])):
            print("".join(f"  {word}{name}: {meaning}\n" for name, meaning in told.items()), end="")
    for pair in found.get("pairs", ()):
        print(f"{' + '.join(pair['methods'])}: {_verdict(pair)}")
    if "together" in found:
        print(f"all together: {_verdict(found['together'])}")
    for row in found.get("with", ()):
        print(f"with {row['name']} ({row['kind']}): {_verdict(row)}")
    if "with" in found:
        alone = "cannot, as alone" if found["methods"][0]["outcome"] == "cannot" else "goes together"
        print(f"with every other installed method: {alone}")
    print("with data {data} and model {model}".format(**found["settings"]))


def _verdict(row: dict[str, Any]) -> str:
    return f"{row['outcome']}: {'; '.join(row['lines'])}" if row["lines"] else str(row["outcome"])
