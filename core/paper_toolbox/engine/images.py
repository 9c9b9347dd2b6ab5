"""Images in class folders: decoded once into memory where they fit, else whenever a batch needs them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .raw import Raw, labelled, whole

BUDGET = 2**30  # bytes of pixels kept in memory
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


@dataclass(frozen=True)
class ImageFiles:
    """Image files read as uint8 (B, channels, size, size) when asked for, by a few threads."""

    paths: tuple[Path, ...]
    size: int
    channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.paths), self.channels, self.size, self.size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor) -> ImageFiles:
        return ImageFiles(tuple(self.paths[i] for i in index.tolist()), self.size, self.channels)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """index (B,) -> (B, channels, size, size) uint8."""
        pixels = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)

        def place(row: int, position: int) -> None:
            pixels[row] = self._decode(self.paths[position])

        for _ in self._pool.map(place, range(len(index)), index.tolist()):
            pass  # drained, so that an unreadable file is raised here
        return pixels

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")

    def _decode(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as file:
                image = file.convert(MODES[self.channels]).resize((self.size, self.size), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from None
        return torch.from_numpy(np.array(image)).view(self.size, self.size, self.channels).permute(2, 0, 1)


def read_folder(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """One sub-folder per class, images anywhere beneath it."""
    recorded = known.get("image", {})
    size, channels = (
        whole(source, name, options.get(name, recorded.get(name, d))) for name, d in (("size", 32), ("channels", 3))
    )
    if channels not in MODES:
        raise DataError(f"{source}: channels={channels}: must be 1 (grey) or 3 (colour)")
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{source}: {path} has no sub-folders; there must be one per class")
    if {f.name.lower() for f in folders} <= SPLITS:
        raise DataError(
            f"{source}: {path} holds {' and '.join(f.name for f in folders)}, not classes: use folder:{folders[0]}"
        )
    paths, labels = _listed(source, folders)
    targets, classes = labelled(np.array(labels), known.get("classes"), source)
    files = ImageFiles(tuple(paths), size, channels)
    pixels = files.index_select(0, torch.arange(len(files))) if np.prod(files.shape) <= BUDGET else files
    record = {"image": {"size": size, "channels": channels}}
    return Raw(kind="classification", inputs={"image": pixels}, targets=targets, classes=classes, record=record)


def _listed(source: str, folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Every image and its class, sorted by path; a class without images is an error."""
    paths: list[Path] = []
    labels: list[str] = []
    for folder in folders:
        images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not images:
            raise DataError(f"{source}: {folder} holds no images ({' '.join(SUFFIXES)})")
        paths += images
        labels += [folder.name] * len(images)
    return paths, labels
