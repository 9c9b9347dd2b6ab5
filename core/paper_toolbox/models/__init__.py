"""The built-in architectures, offered through the same hook as a guest's."""

from __future__ import annotations

from ..hookspecs import hookimpl
from ..kinds import Model
from .cnn import Cnn
from .gpt import Gpt
from .mlp import Mlp
from .vit import Vit

__all__ = ["Cnn", "Gpt", "Mlp", "Vit", "model"]


@hookimpl
def model() -> dict[str, type[Model]]:
    return {"mlp": Mlp, "cnn": Cnn, "vit": Vit, "gpt": Gpt}
