"""What a reader of a source hands over, and the checks every source must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

Kind = Literal["classification", "regression", "tokens"]
IGNORED = -100  # a token target that does not count


class Files(Protocol):
    """Samples decoded on demand to uint8; ``shape`` counts the samples first."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Files: ...
    def index_select(self, dim: int, index: Tensor, /) -> Tensor: ...


@dataclass(kw_only=True)
class Raw:
    """A source as read: floats may be float64, pixels are uint8, ids and masks int64.

    ``vocabularies`` sizes the inputs that are ids; ``columns`` names the entries of a table; ``running`` is text, to be
    split in one cut; ``record`` is what the reader must be told to read other data the same way.
    """

    kind: Kind
    inputs: dict[str, Tensor | Files]
    targets: Tensor
    classes: tuple[str, ...] = ()
    outputs: int = 0
    layout: Literal["tensor", "tuple", "dict"] = "tensor"
    vocabularies: dict[str, int] = field(default_factory=dict)
    masks: frozenset[str] = frozenset()
    columns: Sequence[str] = ()
    running: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outputs = self.outputs or len(self.classes)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one sample of an input."""
        return tuple(self.inputs[name].shape[1:])

    def check(self, source: str, few_is_fine: bool) -> None:
        """Refuse what no model can learn from; ``few_is_fine`` for data that is only predicted."""
        if not len(self.targets):
            raise DataError(f"{source}: it holds no samples")
        for name, rows in self.inputs.items():
            if len(rows) != len(self.targets):
                raise DataError(f"{source}: {name} has {len(rows)} samples but there are {len(self.targets)} targets")
            if isinstance(rows, Tensor):
                finite(rows, f"{source}: {name}", self.columns)
        finite(self.targets, f"{source}: targets", ())
        self._check_masks(source)
        if self.kind == "classification" and not few_is_fine:
            self._check_classes(source)

    def _check_masks(self, source: str) -> None:
        for name in self.masks:
            mask = self.inputs[name]
            beside = [n for n in self.vocabularies if self.inputs[n].shape == mask.shape]
            if self.vocabularies and not beside:
                ids = next(iter(self.vocabularies))
                raise DataError(
                    f"{source}: {name} has shape {tuple(mask.shape)}, must be {ids}'s {tuple(self.inputs[ids].shape)}"
                )
            if isinstance(mask, Tensor) and len(mask) and not ((mask == 0) | (mask == 1)).all():
                raise DataError(f"{source}: {name} must hold 0 and 1 only")

    def _check_classes(self, source: str) -> None:
        counts = torch.bincount(self.targets, minlength=self.outputs)
        present = counts.nonzero().flatten().tolist()
        if len(present) < 2:
            raise DataError(
                f"{source}: every sample is of class {self.classes[present[0]]!r}; two classes are the least"
            )
        if rare := [self.classes[c] for c in present if counts[c] < 2]:
            raise DataError(f"{source}: class {rare[0]!r} has 1 sample; the split needs at least 2 of each class")


def kind_of(source: str, text: str) -> Kind:
    """``text`` as a kind of task."""
    for kind in get_args(Kind):
        if kind == text:
            return kind  # type: ignore[no-any-return]  # one of the literals
    raise DataError(f"{source}: task={text}: must be one of {', '.join(get_args(Kind))}")


def whole(source: str, name: str, value: Any) -> int:
    """An option that counts something."""
    if not str(value).isdigit() or int(value) < 1:
        raise DataError(f"{source}: {name}={value}: must be a whole number, 1 or more")
    return int(value)


def finite(x: Tensor, where: str, columns: Sequence[str]) -> None:
    """Name the first NaN or infinity of x (N, ...)."""
    if not x.is_floating_point() or bool(torch.isfinite(x).all()):
        return
    sample, *rest = (~torch.isfinite(x)).nonzero()[0].tolist()
    value = x[(sample, *rest)].item()
    place = f", column {columns[rest[0]]!r}" if columns and rest else f" at {rest}" if rest else ""
    raise DataError(f"{where}: sample {sample}{place} is {value}: every value must be a finite number")


def labelled(values: np.ndarray[Any, Any], known: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) of any type -> class indices (N,) int64 and class names; ``known`` names fix the order."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.round(values)).all():
        values = values.astype(np.int64)
    found, index = np.unique(values, return_inverse=True)
    names = [str(name) for name in found]
    if known is None:
        return torch.from_numpy(index.astype(np.int64)), tuple(names)
    place: Mapping[str, int] = {name: i for i, name in enumerate(known)}
    if unknown := [name for name in names if name not in place]:
        raise DataError(
            f"{where}: label {unknown[0]!r} is none of the {len(known)} known classes ({', '.join(list(known)[:10])})"
        )
    return torch.tensor([place[name] for name in names])[torch.from_numpy(index)], tuple(known)
