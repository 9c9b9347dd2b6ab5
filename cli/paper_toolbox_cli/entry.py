"""Where the process starts: Ctrl-C ends it quietly even while it is still importing."""

import sys


def main() -> None:
    """The ``toolbox`` command."""
    try:
        from .app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
