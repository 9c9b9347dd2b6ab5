"""What the sources of other libraries share: the package itself, the options a source takes, switches."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from ...errors import ModelError, ToolboxError


def package(name: str, source: str, error: type[ToolboxError] = ModelError, install: str = "") -> Any:
    """The module ``name``; where its package is not installed, the line that installs it, or ``install``."""
    top = name.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        raise error(f"{source} needs the package {top}: pip install {install or top}")
    return importlib.import_module(name)


def known(source: str, options: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse an option that ``source`` does not have."""
    if unknown := [name for name in options if name not in allowed]:
        raise ModelError(f"{source} has no option {unknown[0]!r} (it has {', '.join(allowed) or 'no options'})")


def flag(options: Mapping[str, Any], name: str, default: bool, error: type[ToolboxError] = ModelError) -> bool:
    """An option that is true or false."""
    text = str(options.get(name, default)).lower()
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise error(f"{name}={text}: must be true or false")
    return text in ("true", "1", "yes")
