"""Changes to a model that can be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Saved:
    """The attributes of modules as they were; right for changes that put new tensors in the place of old ones."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = {module: _attributes(module) for module in modules}

    def restore(self) -> None:
        """Put the attributes back; the same tensors as before."""
        for module, attributes in self.modules.items():
            module.__dict__.update(attributes)


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Every floating parameter asks for its gradient while the context is open; restored by name."""
    asked = {name: p.requires_grad for name, p in model.named_parameters()}
    for p in model.parameters():
        p.requires_grad_(p.is_floating_point())
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(asked[name])


def _attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes, their containers copied one level deep."""
    return {k: v.copy() if isinstance(v, dict | list) else v for k, v in vars(module).items()}
