"""``toolbox measure``: figures of a trained model."""

from __future__ import annotations

from .. import output
from ..options import Data, Json, Plugin, Run, Set


def measure(run: Run, plugin: Plugin = None, set_: Set = None, data: Data = None, as_json: Json = False) -> None:
    """Measure a trained model, by itself and with diagnostics."""
    from paper_toolbox.artifact import Artifact
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import assemble

    host = Host()
    choices = assemble(host, None, plugin or (), set_ or (), {}).plugins
    artifact = Artifact.load(run)
    from paper_toolbox.engine.measure import measure as measure_

    figures = measure_(artifact, choices, host, data=data)
    if as_json:
        output.print_json(figures)
    else:
        output.print_figures(figures)
