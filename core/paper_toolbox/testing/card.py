"""The fields tables of a card, written from the declarations: ``python -m paper_toolbox.testing.card FOLDER…``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution
from pathlib import Path

from .. import catalog
from ..errors import PluginError, ToolboxError
from ..host import Host
from ..kinds import KINDS
from ..method import Method
from .package import staged

SECTION = re.compile(r"^## Fields\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def fields_table(name: str, cls: type[Method]) -> str:
    """The table of one method, in the form that ``catalog.field_rows`` reads."""
    rows = [(f"`{f.name}`", f"`{f.default}`", f.bounds, f.doc) for f in cls.fields()]
    return "\n".join(
        [_row(f"`{name}`", "default", "bounds", "meaning"), "|---|---|---|---|", *(_row(*r) for r in rows)]
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def fresh(readme: str, methods: Sequence[tuple[str, type[Method]]], where: str = "README.md") -> str:
    """The card ``readme`` with its section "Fields" written anew."""
    if not SECTION.search(readme):
        raise PluginError(f"{where} has no heading '## Fields'")
    tables = "\n\n".join(fields_table(name, cls) for name, cls in methods)
    return SECTION.sub(lambda _: f"## Fields\n\n{tables}\n\n", readme, count=1).rstrip("\n") + "\n"


def methods_of(distribution: Distribution) -> list[tuple[str, type[Method]]]:
    """(name, class) of each method the distribution announces, its modules imported."""
    host = Host()
    return [(card.name, host.method_of(card)) for card in catalog.of(distribution) if card.kind in KINDS]


def write(folder: Path, *, check: bool = False) -> bool:
    """Rewrite the card of ``folder``, or only ``check`` it; whether it was fresh already."""
    card = folder / "README.md"
    if not card.is_file():
        raise PluginError(f"{folder} has no card: README.md is missing")
    old = card.read_text("utf-8")
    with staged(folder) as distribution:  # the declarations are read while their modules are there
        new = fresh(old, methods_of(distribution), str(card))
    if new != old and not check:
        card.write_text(new, "utf-8")
    return new == old


def main(arguments: Sequence[str]) -> int:
    """The command: folders to rewrite; with ``--check`` nothing is written and a stale card ends with 1."""
    check, folders = "--check" in arguments, [Path(a) for a in arguments if a != "--check"]
    try:
        stale = [folder for folder in folders if not write(folder, check=check)]
    except ToolboxError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    for folder in stale:
        print(f"{folder}/README.md: the fields table {'is stale' if check else 'is rewritten'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
