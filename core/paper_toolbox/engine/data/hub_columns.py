"""The columns of a ``datasets`` data set as inputs and targets: images, one text, or a table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from ..setup.packages import package
from .images import Images, shape_of
from .parquet import frame_of
from .raw import Raw
from .tables import from_frame, set_targets
from .tokens import tokenized


def columns_of(source: str, opened: Any, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """``opened``, a ``datasets.Dataset``, by what its columns are; those that are not asked for are left out."""
    features = {name: type(feature).__name__ for name, feature in opened.features.items()}
    target = _target(source, features, options, known)
    images = [name for name, kind in features.items() if kind == "Image" and name != target]
    texts = [
        n for n, f in opened.features.items() if getattr(f, "dtype", "") in ("string", "large_string") and n != target
    ]
    if "image" in options or images:
        column = _the_only(source, "image", images, options)
        raw = _images(source, opened, column, options, known)
    elif options.keys() & {"text", "tokenizer"} or "tokenizer" in known:
        column = _the_only(source, "text", texts, options)
        raw = _text(source, opened, column, options, known)
    elif texts and len(texts) == len(features) - 1:
        raise DataError(
            f"{source}: column {texts[0]!r} is text: name the tokenizer that makes it numbers, tokenizer=FOLDER (one "
            f"with a tokenizer.json)"
        )
    else:
        return _table(source, opened, target, options, known)
    set_targets(raw, source, _values(opened, target), options, known, _names(opened, target))
    return raw


def _images(source: str, opened: Any, column: str, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    undecoded = opened.cast_column(column, package("datasets", source, DataError).Image(decode=False)).select_columns(
        column
    )
    shape = shape_of(source, options, known)
    files = HubImages(rows=undecoded, positions=torch.arange(len(opened)), column=column, source=source, **shape)
    return Raw(kind="classification", inputs={"image": files.held()}, targets=torch.empty(0), record=files.record)


@dataclass(frozen=True, kw_only=True)
class HubImages(Images):
    """Images that a data set holds as bytes or as paths."""

    rows: Any
    positions: Tensor
    column: str
    source: str

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Tensor) -> HubImages:
        return replace(self, positions=self.positions[index])

    def files(self, index: Tensor) -> Sequence[tuple[str, Any]]:
        places = self.positions[index].tolist()
        found = self.rows[places][self.column]
        return [(f"{self.source}: sample {i}", _file(image)) for i, image in zip(places, found, strict=True)]


def _file(image: Mapping[str, Any] | None) -> Any:
    """What Pillow opens; nothing at all is no image."""
    if image is None:
        return BytesIO()
    return BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"]


def _text(source: str, opened: Any, column: str, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    values = _values(opened, column)
    ids, mask, vocabulary, record = tokenized(source, values.fillna("").tolist(), options, known)
    raw = Raw(
        kind="classification",
        inputs={"input_ids": ids, "attention_mask": mask},
        targets=torch.empty(0),
        layout="dict",
        vocabularies={"input_ids": vocabulary},
        masks=frozenset({"attention_mask"}),
        record=record,
    )
    if values.isna().any():
        raw.empty[column] = values.isna().to_numpy().nonzero()[0].tolist()
    return raw


def _table(source: str, opened: Any, target: str, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    table = opened.with_format("arrow")[:]
    frame = frame_of(source, table, options)
    for name in frame.columns:
        if _names(opened, name):
            frame[name] = _values(opened, name)
    return from_frame(source, frame, {"target": target, **options}, known, classes=_names(opened, target))


def _names(opened: Any, column: str) -> list[str] | None:
    """The names of a ClassLabel column."""
    names = getattr(opened.features[column], "names", None)
    return list(names) if names else None


def _values(opened: Any, column: str) -> Any:
    """A column as a pandas series, class labels by name; a missing label, -1, is empty."""
    import pandas

    values = opened.select_columns(column).to_pandas()[column]
    if names := _names(opened, column):
        return values.map(dict(enumerate(names))).astype("str").where(values >= 0)
    return pandas.Series(values, name=column)


def _target(source: str, features: Mapping[str, str], options: Mapping[str, str], known: Mapping[str, Any]) -> str:
    """The column asked for, else the recorded one, else the only class label, else ``label``."""
    labels = [name for name, kind in features.items() if kind == "ClassLabel"]
    usual = labels[0] if len(labels) == 1 else "label" if "label" in features else None
    recorded = known.get("target") if known.get("target") in features else None
    if (wanted := options.get("target") or recorded or usual) is None:
        raise DataError(f"{source}: say which column to predict: target=COLUMN (columns: {', '.join(features)})")
    return _there(source, wanted, features)


def _the_only(source: str, what: str, found: list[str], options: Mapping[str, str]) -> str:
    """The column asked for by ``what``=COLUMN, else the only one that there is."""
    if what not in options and len(found) != 1:
        have = f"has {len(found)} {what} columns, {', '.join(found)}: say which" if found else f"has no {what} column"
        raise DataError(f"{source}: it {have}" + (f", {what}=COLUMN" if found else ""))
    column = options.get(what) or found[0]
    if column not in found:
        _there(source, column, dict.fromkeys(found))
    return column


def _there(source: str, wanted: str, columns: Mapping[str, Any]) -> str:
    if wanted not in columns:
        near = difflib.get_close_matches(wanted, list(columns), n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(columns) or 'none'}"
        raise DataError(f"{source}: no column {wanted!r} there; {hint}")
    return wanted
