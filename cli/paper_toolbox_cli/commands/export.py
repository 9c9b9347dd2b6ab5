"""``toolbox export``: a run folder becomes an ONNX file."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .. import output
from ..options import Json, Out, Run


def export(
    run: Run,
    out: Out = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option(help="None takes int8 where the run planned it, else fp32."),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set; none takes the exporter's.")] = None,
    as_json: Json = False,
) -> None:
    """Write the model as ONNX and check it against PyTorch on real inputs."""
    from paper_toolbox.artifact import Artifact
    from paper_toolbox.host import Host

    artifact = Artifact.load(run)
    from paper_toolbox.engine.export import export as export_

    report = export_(artifact, out, Host(), precision=precision, opset=opset)
    if as_json:
        output.print_json(report)
    else:
        output.print_figures(report)
