"""Texts as token ids, by a fast tokenizer from a folder; none of its code is run, for there is none in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from ...files import sha256
from ..setup.packages import package
from .raw import whole

CHUNK = 1024  # texts encoded at once, which bounds the memory


def tokenized(
    source: str, texts: list[str], options: Mapping[str, str], known: Mapping[str, Any]
) -> tuple[Tensor, Tensor, int, dict[str, Any]]:
    """ids and mask (N, length) int64, cut and padded to ``length``; the size of the vocabulary; the record."""
    recorded = known.get("tokenizer", {})
    if not (named := options.get("tokenizer") or recorded.get("folder")):
        raise DataError(f"{source}: name the tokenizer of the text: tokenizer=FOLDER (one with a tokenizer.json)")
    folder = Path(named).expanduser()
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"{source}: {folder} has no tokenizer.json: save_pretrained of a fast tokenizer writes one")
    digest = sha256(file)
    if recorded.get("sha256", digest) != digest:
        raise DataError(f"{source}: {file} is not the tokenizer that the model was trained with")
    length = whole(source, "length", options.get("length", recorded.get("length", 64)))
    encoder = _encoder(source, folder, length)
    chunks = [encoder.encode_batch(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
    ids, mask = (
        torch.from_numpy(np.array([getattr(e, name) for c in chunks for e in c], np.int64).reshape(-1, length))
        for name in ("ids", "attention_mask")
    )
    record = {"tokenizer": {"folder": named, "sha256": digest, "length": length}}
    return ids, mask, encoder.get_vocab_size(), record


def _encoder(source: str, folder: Path, length: int) -> Any:
    """The tokenizer, set to give exactly ``length`` ids."""
    tokenizers = package("tokenizers", source, DataError, "'paper-toolbox-core[hf]'")
    try:
        encoder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = json.loads(path.read_text("utf-8")) if (path := folder / "tokenizer_config.json").is_file() else {}
    except Exception as error:  # the library raises Exception itself
        raise DataError(f"{source}: {folder} holds no tokenizer that can be read: {error}") from None
    named = settings.get("pad_token")
    pad = named.get("content") if isinstance(named, dict) else named
    usual = encoder.padding or {"pad_id": 0, "pad_token": ""}
    pad_id = encoder.token_to_id(pad) if pad is not None else usual["pad_id"]
    if pad_id is None:
        raise DataError(f"{source}: {folder} pads with {pad!r}, which is not in its vocabulary")
    side = settings.get("padding_side", usual.get("direction", "right"))
    encoder.enable_truncation(length)
    encoder.enable_padding(direction=side, length=length, pad_id=pad_id, pad_token=pad or usual["pad_token"])
    return encoder
