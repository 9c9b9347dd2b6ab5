"""What a plugin may offer: one hook per kind, each returning ``{name: class}``; openers of sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import nn

    from .kinds import Attributor, Compressor, Diagnostic, Loss, Model, Normalizer, Observer, Optimizer, Regimen, Solver
    from .task import Task

PROJECT = "paper_toolbox"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def optimizer() -> dict[str, type[Optimizer]]:  # type: ignore[empty-body]  # a specification, never called
    """Optimizers, learning-rate rules, gradient transforms."""


@hookspec
def normalizer() -> dict[str, type[Normalizer]]:  # type: ignore[empty-body]
    """Activation norms, weight re-parameterizations, norm-free recipes."""


@hookspec
def loss() -> dict[str, type[Loss]]:  # type: ignore[empty-body]
    """Training criteria and penalties."""


@hookspec
def compressor() -> dict[str, type[Compressor]]:  # type: ignore[empty-body]
    """Pruning, low rank, quantization."""


@hookspec
def attributor() -> dict[str, type[Attributor]]:  # type: ignore[empty-body]
    """Explanations of a prediction."""


@hookspec
def regimen() -> dict[str, type[Regimen]]:  # type: ignore[empty-body]
    """Ways to train."""


@hookspec
def model() -> dict[str, type[Model]]:  # type: ignore[empty-body]
    """Architectures."""


@hookspec
def diagnostic() -> dict[str, type[Diagnostic]]:  # type: ignore[empty-body]
    """Measurements of a model."""


@hookspec
def solver() -> dict[str, type[Solver]]:  # type: ignore[empty-body]
    """Solvers of problems given as arrays."""


@hookspec
def observer() -> dict[str, type[Observer]]:  # type: ignore[empty-body]
    """Loggers: they see every row of a run and change nothing."""


@hookspec(firstresult=True)
def open_model(source: str, task: Task) -> nn.Module | None:
    """The model that ``source`` (``scheme:rest``) names, or None when it is not this plugin's scheme."""


@hookspec(firstresult=True)
def open_data(source: str, seed: int, validation: float) -> Any | None:
    """The ``engine.data.Data`` that ``source`` (``scheme:rest``) names, or None when it is not this plugin's scheme."""
