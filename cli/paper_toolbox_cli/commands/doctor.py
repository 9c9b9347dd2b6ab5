"""``toolbox doctor``: what this machine can do."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import output
from ..options import Json


def doctor(
    plugins: Annotated[bool, typer.Option("--plugins", help="Import every installed plugin, too.")] = False,
    as_json: Json = False,
) -> None:
    """Print versions and devices, and open a real session on each ONNX Runtime provider."""
    from paper_toolbox.engine.doctor import doctor as doctor_

    report = doctor_(check_plugins=plugins)
    if as_json:
        output.print_json(report)
    else:
        output.print_figures(report)
