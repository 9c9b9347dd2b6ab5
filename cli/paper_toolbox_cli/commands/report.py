"""``toolbox report``: a run folder told to people."""

from __future__ import annotations

from .. import output
from ..options import Json, Run


def report(run: Run, as_json: Json = False) -> None:
    """Write report.html and MODEL_CARD.md into a run folder."""
    from paper_toolbox.artifact import Artifact
    from paper_toolbox.engine.report import report as report_
    from paper_toolbox.host import Host

    written = report_(Artifact.load(run), Host())
    if as_json:
        output.print_json(written)
    else:
        output.print_figures({"report": written["report"]})
