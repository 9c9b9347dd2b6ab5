"""Parquet files: one, or all of a folder as one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..setup.packages import package
from .raw import Raw
from .tables import from_frame

EXTRA = "'paper-toolbox-core[parquet]'"


def read_parquet(source: str, path: Path, options: Mapping[str, str], known: Mapping[str, Any]) -> Raw:
    """A Parquet file, or a folder of them whose sub-folders ``name=value`` are a column, by the rules of a table."""
    dataset = package("pyarrow.dataset", source, DataError, EXTRA).dataset
    files = (
        [path] if path.is_file() else sorted(p for p in path.rglob("*.parquet") if not p.name.startswith((".", "_")))
    )
    if not files:
        raise DataError(f"{source}: {path} holds no *.parquet")
    try:
        table = dataset([str(file) for file in files], format="parquet", partitioning="hive").to_table()
    except (OSError, ValueError, TypeError, NotImplementedError) as error:  # Arrow's errors derive from these
        raise DataError(f"{source}: {path} cannot be read as Parquet: {error}") from None
    return from_frame(source, frame_of(source, table, options), options, known)


def frame_of(source: str, table: Any, options: Mapping[str, str]) -> Any:
    """The pandas frame of an Arrow table; columns of lists and bytes are refused unless they are dropped."""
    types = package("pyarrow.types", source, DataError, EXTRA)
    dropped = options.get("drop", "").split(",")
    for column in table.schema:
        if column.name not in dropped and (types.is_nested(column.type) or types.is_binary(column.type)):
            raise DataError(
                f"{source}: column {column.name!r} holds {column.type}; a table has one number or text in each place: "
                f"leave it out with drop={column.name}"
            )
    frame = table.to_pandas(ignore_metadata=True)
    for column in table.schema:
        if types.is_decimal(column.type):
            frame[column.name] = frame[column.name].astype(float)
    return frame
