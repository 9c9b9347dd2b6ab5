"""``toolbox attribute``: why a trained model answers as it does."""

from __future__ import annotations

from typing import Annotated

import typer
from paper_toolbox.errors import NeedError

from .. import output
from ..options import Data, Json, Out, Plugin, Run, Set


def attribute(
    run: Run,
    plugin: Plugin = None,
    set_: Set = None,
    data: Data = None,
    samples: Annotated[int, typer.Option(min=1, help="Validation samples to explain.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of methods that draw random numbers.")] = 0,
    layer: Annotated[str | None, typer.Option(metavar="PATH", help="Layer, for methods that ask for one.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Explain predictions: a picture, the arrays, and how faithful they are."""
    from paper_toolbox.artifact import Artifact
    from paper_toolbox.host import Host
    from paper_toolbox.recipe import assemble

    host = Host()
    choices = assemble(host, None, plugin or (), set_ or (), {}).plugins
    if len(choices) != 1:
        raise NeedError("attribute takes one method: name it with --plugin (see `toolbox list attributor`)")
    artifact = Artifact.load(run)
    from paper_toolbox.engine.attribute import attribute as attribute_

    report = attribute_(artifact, choices[0], out, host, data=data, samples=samples, seed=seed, layer=layer)
    if as_json:
        output.print_json(report)
    else:
        output.print_figures({**report["faithfulness"], "picture": report["picture"]})
