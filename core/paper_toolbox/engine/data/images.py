"""Images in class folders: decoded once into memory where they fit, else whenever a batch needs them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import DataError
from .raw import Files, Raw, labelled, whole

BUDGET = 2**30  # bytes of pixels kept in memory
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


@dataclass(frozen=True, kw_only=True)
class Images(ABC):
    """Images read as uint8 (B, channels, size, size) when asked for, by a few threads."""

    size: int
    channels: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Tensor) -> Images: ...

    @abstractmethod
    def files(self, index: Tensor) -> Sequence[tuple[str, Any]]:
        """index (B,) -> the name of each image, for messages, and the path or file that Pillow opens."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), self.channels, self.size, self.size)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """index (B,) -> (B, channels, size, size) uint8."""
        pixels = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)

        def place(row: int, file: tuple[str, Any]) -> None:
            pixels[row] = self._decode(*file)

        for _ in self._pool.map(place, range(len(index)), self.files(index)):
            pass  # drained, so that an unreadable file is raised here
        return pixels

    def held(self) -> Tensor | Files:
        """The pixels, where they fit into memory."""
        return self.index_select(0, torch.arange(len(self))) if np.prod(self.shape) <= BUDGET else self

    @property
    def record(self) -> dict[str, Any]:
        """What other images must be made like."""
        return {"image": {"size": self.size, "channels": self.channels}}

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")

    def _decode(self, name: str, file: Any) -> Tensor:
        try:
            with Image.open(file) as opened:
                image = opened.convert(MODES[self.channels]).resize((self.size, self.size), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{name} cannot be read as an image: {error}") from None
        return torch.from_numpy(np.array(image)).view(self.size, self.size, self.channels).permute(2, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ImageFiles(Images):
    """Images in files of their own."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor) -> ImageFiles:
        return replace(self, paths=tuple(self.paths[i] for i in index.tolist()))

    def files(self, index: Tensor) -> Sequence[tuple[str, Any]]:
        return [(str(self.paths[i]), self.paths[i]) for i in index.tolist()]


def shape_of(source: str, options: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, int]:
    """``size`` and ``channels`` as asked for, as recorded, or as usual."""
    usual = {"size": 32, "channels": 3} | known.get("image", {})
    asked = {name: whole(source, name, options.get(name, usual[name])) for name in usual}
    if asked["channels"] not in MODES:
        raise DataError(f"{source}: channels={asked['channels']}: must be 1 (grey) or 3 (colour)")
    return asked


def read_folder(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """One sub-folder per class, images anywhere beneath it."""
    shape = shape_of(source, options, known)
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"{source}: {path} has no sub-folders; there must be one per class")
    if {f.name.lower() for f in folders} <= SPLITS:
        raise DataError(
            f"{source}: {path} holds {' and '.join(f.name for f in folders)}, not classes: use folder:{folders[0]}"
        )
    paths, labels = _listed(source, folders)
    targets, classes = labelled(np.array(labels), known.get("classes"), source)
    files = ImageFiles(paths=tuple(paths), **shape)
    inputs: dict[str, Tensor | Files] = {"image": files.held()}
    return Raw(kind="classification", inputs=inputs, targets=targets, classes=classes, record=files.record)


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
