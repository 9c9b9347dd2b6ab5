"""The ``toolbox`` command as a function, in the process of the tests."""

from __future__ import annotations

import sys

import pytest
from paper_toolbox_cli.app import main


def toolbox(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of one command in this process."""
    earlier = sys.argv
    sys.argv = ["toolbox", *arguments]
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = earlier
    out, err = capsys.readouterr()
    return status, out, err
