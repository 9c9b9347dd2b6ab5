"""Paper Toolbox: the light contract that plugins build on."""

from .hookspecs import hookimpl
from .host import method
from .kinds import (
    Attributor,
    Compressor,
    Diagnostic,
    Loss,
    Model,
    Normalizer,
    Observer,
    Optimizer,
    Record,
    Regimen,
    Run,
    Solver,
)
from .method import param

__version__ = "0.1.0"

__all__ = [
    "Attributor",
    "Compressor",
    "Diagnostic",
    "Loss",
    "Model",
    "Normalizer",
    "Observer",
    "Optimizer",
    "Record",
    "Regimen",
    "Run",
    "Solver",
    "hookimpl",
    "method",
    "param",
]
