"""What a reader of a source hands over, and the checks every source must pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError

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

    ``vocabularies`` sizes the inputs that are ids; ``columns`` names the entries of a table and ``target`` its target;
    ``empty`` names the samples where a column has no value (NaN, or the class -1), ``first_row`` the row of sample 0;
    ``running`` is text, to be split in one cut; ``record`` is what the reader must be told to read other data alike.
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
    target: str = ""
    empty: dict[str, Sequence[int]] = field(default_factory=dict)
    first_row: int = 0
    running: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outputs = self.outputs or len(self.classes)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one sample of an input."""
        return tuple(self.inputs[name].shape[1:])

    def check(self, source: str, few_is_fine: bool) -> None:
        """Refuse what no model can learn from; ``few_is_fine`` for data that is only predicted."""
        if found := list(self.problems(few_is_fine)):
            more = f" (and {len(found) - 1} more problems: --check-data lists them)" if len(found) > 1 else ""
            raise DataError(f"{source}: {found[0]}{more}")

    def problems(self, few_is_fine: bool) -> Iterator[str]:
        """Everything that ``check`` refuses."""
        if not len(self.targets):
            yield "it holds no samples"
            return
        yield from self._emptiness()
        for name, rows in self.inputs.items():
            if len(rows) != len(self.targets):
                yield f"{name} has {len(rows)} samples but there are {len(self.targets)} targets"
            if isinstance(rows, Tensor):
                yield from infinite(rows, name, self.columns, self.empty)
        yield from infinite(self.targets, "targets", (self.target,), self.empty)
        yield from self._wrong_masks()
        if self.kind == "classification" and not few_is_fine:
            yield from self._poor_classes()

    def _emptiness(self) -> Iterator[str]:
        for name, samples in self.empty.items():
            more = f", and {len(samples) - 1} more rows" if len(samples) > 1 else ""
            what = "target column" if name == self.target else "column"
            yield f"{what} {name!r}, row {samples[0] + self.first_row} is empty or NaN{more}"

    def _wrong_masks(self) -> Iterator[str]:
        for name in self.masks:
            mask = self.inputs[name]
            beside = [n for n in self.vocabularies if self.inputs[n].shape == mask.shape]
            if self.vocabularies and not beside:
                ids = next(iter(self.vocabularies))
                yield f"{name} has shape {tuple(mask.shape)}, must be {ids}'s {tuple(self.inputs[ids].shape)}"
            if isinstance(mask, Tensor) and len(mask) and not ((mask == 0) | (mask == 1)).all():
                yield f"{name} must hold 0 and 1 only"

    def _poor_classes(self) -> Iterator[str]:
        counts = torch.bincount(self.targets[self.targets >= 0], minlength=self.outputs)
        present = counts.nonzero().flatten().tolist()
        if len(present) == 1:
            yield f"every sample is of class {self.classes[present[0]]!r}; two classes are the least"
        for rare in (c for c in present if counts[c] < 2):
            yield f"class {self.classes[rare]!r} has 1 sample; the split needs at least 2 of each class"


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


def infinite(x: Tensor, where: str, columns: Sequence[str], empty: Mapping[str, Any]) -> Iterator[str]:
    """The NaN and infinities of x (N, ...): by column where these have names, NaN of the ``empty`` left out."""
    if not x.is_floating_point() or bool(torch.isfinite(x).all()):
        return
    wrong = ~torch.isfinite(x)
    if x.dim() != 2 or len(columns) != x.shape[1]:
        yield _first_of(x, wrong, where, "")
        return
    for j, column in enumerate(columns):
        bad = x[:, j].isinf() if column in empty else wrong[:, j]
        if bad.any():
            yield _first_of(x, bad[:, None] & (torch.arange(x.shape[1]) == j), where, column)


def _first_of(x: Tensor, wrong: Tensor, where: str, column: str) -> str:
    places = wrong.nonzero()
    sample, *rest = places[0].tolist()
    place = f", column {column!r}" if column else f" at {rest}" if rest else ""
    more = f" ({len(places)} such values)" if len(places) > 1 else ""
    value = x[(sample, *rest)].item()
    return f"{where}: sample {sample}{place} is {value}: every value must be a finite number{more}"


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
    return torch.tensor([place[name] for name in names], dtype=torch.int64)[torch.from_numpy(index)], tuple(known)
