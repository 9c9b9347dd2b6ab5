"""Every error raised on purpose; the command line prints these as one line, without a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class ToolboxError(Exception):
    """Base of all expected failures; ``exit_status`` is what the command line ends with."""

    exit_status = 1


class UnknownMethod(ToolboxError):
    """No installed plugin offers the method asked for."""


class ParamError(ToolboxError):
    """A hyper-parameter or setting is unknown, of the wrong type, or out of its bounds."""


class NeedError(ToolboxError):
    """A method needs something that this run does not provide, or methods of one run exclude each other."""


class Conflict(NeedError):
    """Methods, or methods and settings, that cannot go together; ``about`` names them."""

    def __init__(self, message: str, about: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.about = about


class DataError(ToolboxError):
    """A data source is missing, unreadable, or holds values no model can learn from."""


class ModelError(ToolboxError):
    """A model cannot be built, edited, or does not fit its data."""


class ArtifactError(ToolboxError):
    """A run folder is missing, damaged, from a newer format, or already there."""


class ExportError(ToolboxError):
    """A model cannot be written as ONNX, or ONNX Runtime cannot run it as asked."""


class NothingChanged(ToolboxError):
    """A method that had to change the model found nothing to change."""


class GateMissed(ToolboxError):
    """A result missed the accuracy, speed, size or parity it had to reach; the report is kept."""

    exit_status = 3

    def __init__(self, message: str, report: dict[str, Any] | None = None, folder: Path = Path()) -> None:
        super().__init__(message)
        self.report = report or {}
        self.folder = folder


class PluginError(ToolboxError):
    """A plugin does not keep its contract: it fails to import, or its hook lacks what it announces."""

    exit_status = 4


class Interrupted(ToolboxError):
    """The user stopped the run; its state is saved."""

    exit_status = 130
