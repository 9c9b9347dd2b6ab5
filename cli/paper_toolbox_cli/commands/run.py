"""``toolbox run``: an ONNX file on data, in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import output
from ..options import Data, Json


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="File of `toolbox export`.")],
    data: Data = None,
    provider: Annotated[
        Literal["auto", "cuda", "tensorrt", "cpu"], typer.Option(help="A named provider never falls back to the CPU.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a batch.")] = 64,
    bench: Annotated[bool, typer.Option("--bench", help="Measure latency and throughput.")] = False,
    nodes: Annotated[bool, typer.Option("--nodes", help="Count the nodes that run on each provider.")] = False,
    as_json: Json = False,
) -> None:
    """Run an exported model and say how good and how fast it is."""
    from paper_toolbox.engine.run import run as run_
    from paper_toolbox.host import Host

    figures = run_(model, Host(), data=data, provider=provider, batch_size=batch_size, bench=bench, nodes=nodes)
    if as_json:
        output.print_json(figures)
    else:
        output.print_figures(figures)
