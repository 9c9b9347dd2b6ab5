"""``toolbox install``: the package that the registry names for a method."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer
from paper_toolbox import registry
from paper_toolbox.errors import ToolboxError, UnknownMethod

from .. import output
from ..options import Json


def install(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method that the registry knows.")],
    as_json: Json = False,
) -> None:
    """Install the package that offers a method, with pip."""
    package = registry.package_of(name)
    if package is None:
        raise UnknownMethod(
            f"the registry knows no method {name!r}: find it with `toolbox search`, or pip install its package"
        )
    done = subprocess.run([sys.executable, "-m", "pip", "install", package], stdout=sys.stderr, check=False)
    if done.returncode:
        raise ToolboxError(f"pip could not install {package} (exit status {done.returncode})")
    if as_json:
        output.print_json({"name": name, "package": package})
