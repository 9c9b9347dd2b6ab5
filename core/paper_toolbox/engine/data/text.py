"""Running text, predicted character by character."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import DataError
from .raw import Raw, whole


def read_text(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """Next-character prediction: windows of ``length`` characters that share none, so that no part sees the other's."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: {path} is not UTF-8 text: {error}") from None
    length = whole(source, "length", options.get("length", known.get("length", 64)))
    characters = known.get("classes") or sorted(set(text))
    if (count := len(text) // (length + 1)) < 2:
        raise DataError(
            f"{source}: {path} has {len(text)} characters; windows of {length} need {2 * (length + 1)} at least"
        )
    place = {character: i for i, character in enumerate(characters)}
    if unknown := sorted(set(text) - place.keys()):
        raise DataError(f"{source}: {path} has the character {unknown[0]!r}, which the training text did not have")
    ids = torch.tensor([place[c] for c in text[: count * (length + 1)]]).view(count, length + 1)
    return Raw(
        kind="tokens",
        inputs={"ids": ids[:, :-1].contiguous()},
        targets=ids[:, 1:].contiguous(),
        running=True,
        classes=tuple(characters),
        vocabularies={"ids": len(characters)},
        record={"length": length},
    )
