"""Data given as arrays: ``.npz`` files, and what a ``module:function`` returns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from .raw import IGNORED, Raw, kind_of, labelled

TARGETS = ("y", "targets", "labels", "target")


def read_npz(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """Arrays ``x`` and ``y``, or several named inputs beside ``y``; never a pickle."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, TypeError) as error:
        raise DataError(f"{source}: {path} cannot be read as npz without pickle (truncated?): {error}") from None
    target = options.get("target") or next((name for name in TARGETS if name in arrays), None)
    if target not in arrays:
        raise DataError(
            f"{source}: no array {target or 'y'!r} for the targets; it has {', '.join(arrays) or 'no arrays'}"
        )
    classes = arrays.pop("classes", None)
    targets = arrays.pop(target)
    if not arrays:
        raise DataError(f"{source}: no input beside the targets {target!r}")
    names = list(classes.astype(str)) if classes is not None else None
    raw = read_arrays(source, arrays, targets, known=known, names=names, task=options.get("task"))
    raw.layout = "tensor" if len(arrays) == 1 else "dict"
    return raw


def read_arrays(
    source: str,
    inputs: Any,
    targets: Any,
    *,
    known: Mapping[str, Any],
    names: list[str] | None = None,
    task: str | None = None,
) -> Raw:
    """inputs: an array, a tuple, or a dictionary of arrays (N, ...); targets (N,), (N, D) or (N, T).

    Integer inputs are ids; those named ``…mask`` are masks; uint8 and floats are numbers, to be standardised.
    Float targets mean regression, (N, T) integers beside (N, T) ids mean tokens, anything else classes.
    """
    layout, named = _named(inputs)
    columns = {name: _column(source, name, values) for name, values in named.items()}
    masks = frozenset(n for n, x in columns.items() if "mask" in n and x.dtype == torch.int64)
    ids = [n for n, x in columns.items() if x.dtype == torch.int64 and n not in masks]
    labels = np.asarray(targets)
    kind = kind_of(source, task or known.get("kind") or _kind(labels, [columns[n] for n in ids]))
    vocabularies = {n: known.get("vocabularies", {}).get(n) or _vocabulary(source, n, columns[n]) for n in ids}
    for name in ids:
        if len(columns[name]) and int(columns[name].max()) >= vocabularies[name]:
            raise DataError(
                f"{source}: {name} holds id {int(columns[name].max())}; the vocabulary has {vocabularies[name]}"
            )
    raw = Raw(
        kind=kind, inputs=dict(columns), targets=torch.empty(0), layout=layout, vocabularies=vocabularies, masks=masks
    )
    raw.record = {"kind": kind, "vocabularies": vocabularies}
    _set_targets(raw, source, labels, known.get("classes") or names)
    return raw


def _named(inputs: Any) -> tuple[Literal["tensor", "tuple", "dict"], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return "dict", {str(name): values for name, values in inputs.items()}
    if isinstance(inputs, tuple | list):
        return "tuple", {f"input{i}": values for i, values in enumerate(inputs)}
    return "tensor", {"input": inputs}


def _column(source: str, name: str, values: Any) -> Tensor:
    """float64 or float32 numbers, uint8 pixels, or int64 ids and masks; (N,) becomes (N, 1)."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{source}: {name} holds {array.dtype}, must hold numbers")
    if array.dtype.kind == "f":
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    elif array.dtype != np.uint8:
        array = array.astype(np.int64)
    column = torch.from_numpy(np.ascontiguousarray(array))
    return column[:, None] if column.dim() == 1 else column


def _kind(labels: np.ndarray[Any, Any], ids: list[Tensor]) -> str:
    if labels.dtype.kind == "f":
        return "regression"
    return "tokens" if labels.ndim == 2 and any(labels.shape == tuple(x.shape) for x in ids) else "classification"


def _vocabulary(source: str, name: str, ids: Tensor) -> int:
    if len(ids) and int(ids.min()) < 0:
        raise DataError(f"{source}: {name} holds the id {int(ids.min())}: ids count from 0 (numbers must be float)")
    return int(ids.max()) + 1 if len(ids) else 1


def _set_targets(raw: Raw, source: str, labels: np.ndarray[Any, Any], names: list[str] | None) -> None:
    if raw.kind == "regression":
        if labels.dtype.kind not in "fiub":
            raise DataError(f"{source}: regression targets hold {labels.dtype}, must hold numbers")
        raw.targets = torch.from_numpy(labels.astype(np.float64)).view(len(labels), -1)
    elif raw.kind == "tokens":
        shapes = [tuple(raw.inputs[name].shape) for name in raw.vocabularies]
        if labels.shape not in shapes or labels.dtype.kind not in "iu":
            raise DataError(f"{source}: token targets are {labels.dtype} {labels.shape}, must be ids of shape {shapes}")
        raw.targets = torch.from_numpy(labels.astype(np.int64))
        raw.outputs = max(raw.vocabularies.values(), default=1)
        wrong = (raw.targets != IGNORED) & ((raw.targets < 0) | (raw.targets >= raw.outputs))
        if wrong.any():
            raise DataError(
                f"{source}: target {int(raw.targets[wrong][0])} lies outside 0..{raw.outputs - 1} ({IGNORED}: ignored)"
            )
    else:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise DataError(f"{source}: class targets have shape {labels.shape}, must be (N,)")
        _set_classes(raw, source, labels, names)


def _set_classes(raw: Raw, source: str, labels: np.ndarray[Any, Any], names: list[str] | None) -> None:
    """Labels are class names, or, with given names that they are not among, positions in them."""
    whole = labels.dtype.kind in "iub"
    if names is not None and whole and not set(map(str, np.unique(labels))) <= set(names):
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
            worst = labels.min() if labels.min() < 0 else labels.max()
            raise DataError(f"{source}: label {worst} lies outside 0..{len(names) - 1}, the {len(names)} classes")
        raw.targets, raw.classes = torch.from_numpy(labels.astype(np.int64)), tuple(names)
    else:
        raw.targets, raw.classes = labelled(labels, names, source)
    raw.outputs = len(raw.classes)
