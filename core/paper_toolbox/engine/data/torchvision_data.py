"""The data sets of torchvision that are images and classes, read by torchvision itself."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import DataError
from ..setup.packages import flag, package
from .images import MODES, shape_of
from .raw import Raw, labelled

NAMES = ("MNIST", "FashionMNIST", "KMNIST", "SVHN")
PICKLED = {"CIFAR10": "hf:uoft-cs/cifar10", "CIFAR100": "hf:uoft-cs/cifar100"}  # and where the same images are not


def read_torchvision(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """``torchvision:SVHN?root=DIR``: its training part, or ``split=test``; fetched only with ``download=true``."""
    name = str(path)
    if name in PICKLED:
        instead = f"the same images without: --data '{PICKLED[name]}?split=train&download=true'"
        raise DataError(f"{source}: torchvision keeps {name} as pickles, which are never loaded; {instead}")
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        raise DataError(f"{source}: no data set {name!r}; {hint}")
    opened = _opened(source, getattr(package("torchvision.datasets", source, DataError), name), options)
    samples = [opened[i] for i in range(len(opened))]
    if not samples:
        raise DataError(f"{source}: it holds no samples")
    first: Image.Image = samples[0][0]
    usual = {"size": first.size[0], "channels": len(first.getbands())}
    shape = shape_of(source, options, {"image": usual | known.get("image", {})})
    pixels = torch.stack([_pixels(image, **shape) for image, _ in samples])
    positions = np.array([int(target) for _, target in samples])
    names = [str(each) for each in getattr(opened, "classes", range(positions.max() + 1))]
    targets, classes = labelled(np.array(names)[positions], known.get("classes") or names, source)
    inputs: dict[str, Any] = {"image": pixels}
    return Raw(kind="classification", inputs=inputs, targets=targets, classes=classes, record={"image": shape})


def _opened(source: str, data_set: Any, options: Mapping[str, str]) -> Any:
    """The data set of torchvision, one part of it."""
    if not (root := options.get("root")):
        raise DataError(f"{source}: say where its files are, or shall be: root=FOLDER")
    part = options.get("split", "train")
    by_flag = "train" in inspect.signature(data_set).parameters
    parts = ("train", "test") if by_flag else ("train", "test", "extra")
    if part not in parts:
        raise DataError(f"{source}: split={part}: must be one of {', '.join(parts)}")
    asked = {"train": part == "train"} if by_flag else {"split": part}
    folder = str(Path(root).expanduser())
    try:
        return data_set(root=folder, download=flag(options, "download", False, DataError), **asked)
    except (RuntimeError, OSError, ValueError) as error:  # not there, damaged, or the network failed
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{source}: torchvision cannot read it from {folder}: {said} (download=true fetches it)"
        ) from error


def _pixels(image: Image.Image, size: int, channels: int) -> torch.Tensor:
    """(channels, size, size) uint8."""
    image = image.convert(MODES[channels])
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).view(size, size, channels).permute(2, 0, 1)
