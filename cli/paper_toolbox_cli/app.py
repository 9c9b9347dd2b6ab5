"""The ``toolbox`` command. Nothing here imports torch; each command imports its engine when it runs."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

import typer
from paper_toolbox.errors import Interrupted, PluginError, ToolboxError

from .commands import (
    attribute,
    check,
    compare,
    compress,
    data,
    doctor,
    export,
    info,
    inspect,
    install,
    listing,
    measure,
    new,
    parity,
    registry,
    report,
    reproduce,
    train,
    why,
)
from .commands import run as run_

PATIENCE = 5.0  #: seconds that other processes of a run leave the first one to speak

app = typer.Typer(
    name="toolbox",
    help="Methods from papers, one plugin each: train, compress, explain, export to ONNX Runtime.",
    epilog="Every command takes --json, and --debug to show the traceback of an error.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(listing.list_)
app.command("search")(listing.search)
app.command("info")(info.info)
app.command("install")(install.install)
app.command("data")(data.data)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("why")(why.why)
app.command("compress")(compress.compress)
app.command("export")(export.export)
app.command("run")(run_.run)
app.command("inspect")(inspect.inspect)
app.command("reproduce")(reproduce.reproduce)
app.command("attribute")(attribute.attribute)
app.command("report")(report.report)
app.command("measure")(measure.measure)
app.command("new")(new.new)
app.command("check")(check.check)
app.command("parity")(parity.parity)
app.command("doctor")(doctor.doctor)
app.add_typer(registry.app, name="registry")


def main() -> None:
    """Run the command line; expected errors are one line on stderr."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except ToolboxError as error:
        _end(error, str(error), error.exit_status, debug)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(error, f"{error.filename or 'output'}: {error.strerror or error}", 1, debug)
    except Exception as error:  # the last stop before the user, who gets a line and not a traceback
        plugin = _plugin_at_fault(error.__traceback__)
        what = f"{type(error).__name__}: {error}"
        if plugin:
            _end(error, f"plugin {plugin} failed: {what}", PluginError.exit_status, debug)
        _end(error, f"unexpected {what} (please report it; --debug shows where)", 1, debug)


def _end(error: BaseException, line: str, status: int, debug: bool) -> None:
    if debug:
        raise error
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # where the first process says the same, the launcher ends this one meanwhile
        if isinstance(error, Interrupted):
            sys.exit(status)
        time.sleep(PATIENCE)
        line = f"process {rank}: {line}"
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(status)


def _plugin_at_fault(traceback: TracebackType | None) -> str | None:
    """The package whose module raised, when it is a plugin's."""
    from paper_toolbox import catalog

    owners = {card.entry.module: f"{card.package} {card.version}" for card in catalog.cards()}
    found = None
    while traceback is not None:
        found = owners.get(traceback.tb_frame.f_globals.get("__name__", ""), found)
        traceback = traceback.tb_next
    return found
