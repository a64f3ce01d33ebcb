"""Parquet shards: written whole or not at all, read with checks, joined by key.

A data set is a folder of shards named ``<split>-<number>.parquet``. Folders made from one another
(images, features, targets, [IMG] states) have the same shard names with the same keys in the same
order, so a training example is a row of several folders and no join table is needed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.io.atomic import atomic_file
from data.quantization import restore

KEPT = "kept"  # a column by which rows are left out

Columns = dict[str, npt.NDArray[np.generic] | list[str]]


class ShardError(RuntimeError):
    """A shard is missing, unreadable or does not line up with its neighbours."""


def shard_names(folder: Path, split: str | None = None) -> list[str]:
    """Sorted names of the shards of a folder, of one split or of all."""
    return sorted(p.name for p in folder.glob(f"{split or '*'}-[0-9]*.parquet"))


def write_shard(path: Path, table: pa.Table) -> None:
    """Write a shard so that no reader ever sees a part of it, also after a crash.

    Images and text targets are left as they are, the rest is zstd (docs/experiments.md has the
    figures). Vectors have no dictionary: looking for repeated numbers costs more than writing them.
    """
    vectors = [f.name for f in table.schema if pa.types.is_fixed_size_list(f.type)]
    plain = {"image", *(f.name for f in table.schema if pa.types.is_fixed_size_binary(f.type))}
    with atomic_file(path) as handle:
        pq.write_table(
            table,
            handle,
            compression={n: "none" if n in plain else "zstd" for n in table.column_names},
            use_dictionary=[n for n in table.column_names if n not in {*plain, *vectors}],
            write_page_checksum=True,
        )


def unreadable(path: Path, error: Exception) -> ShardError:
    """What to say when a shard cannot be read."""
    return ShardError(
        f"cannot read the shard {path}: {error}. Run the stage "
        f"{path.absolute().parents[2].name!r} again: it makes what is damaged anew."
    )


def read_table(path: Path, columns: Sequence[str] | None = None, kind: str = "") -> pa.Table:
    """Read a shard, or some columns of it.

    Args:
        kind: the schema's name, checked when given.

    Raises:
        ShardError: the file is missing or damaged.
        schemas.SchemaError: it holds something else.
    """
    try:
        table = pq.read_table(
            path, columns=list(columns) if columns else None, page_checksum_verification=True
        )
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    if kind:
        schemas.check(table.schema, kind, str(path))
    return table


def rows_of(path: Path) -> int:
    """Number of rows of a shard, from its footer alone.

    Raises:
        ShardError: the file is missing or damaged.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def matrix(table: pa.Table, column: str) -> npt.NDArray[np.generic]:
    """A fixed-size-list column as an array ``(rows, size)`` without a copy where Arrow allows."""
    array = table.column(column).combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    values = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(table), table.schema.field(column).type.list_size)


def lists(values: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> pa.FixedSizeListArray:
    """An array ``(rows, ...)`` as a fixed-size-list column."""
    width = math.prod(values.shape[1:])
    flat = np.ascontiguousarray(values.reshape(len(values), width), dtype=dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def as_bytes(values: npt.NDArray[np.generic]) -> pa.FixedSizeBinaryArray:
    """An array ``(rows, ...)`` as a column of as many bytes: half precision or 8-bit codes."""
    rows = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
    width = rows.shape[1] * rows.itemsize
    return pa.Array.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])


def from_bytes(table: pa.Table, column: str) -> npt.NDArray[np.generic]:
    """What ``as_bytes`` was given, as ``(rows, size)``, without a copy of a single chunk.

    8-bit codes where the column has a scale beside it, else half precision.
    """
    array = table.column(column).combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    dtype = np.dtype(np.int8 if f"{column}_scale" in table.column_names else np.float16)
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    rows = data[array.offset * width :][: len(array) * width]
    return rows.view(dtype).reshape(len(array), width // dtype.itemsize)


def columns_of(table: pa.Table) -> Columns:
    """A table as arrays and lists by column; 8-bit columns stay as they are, see ``restored``."""
    out: Columns = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_fixed_size_list(kind):
            out[name] = matrix(table, name)
        elif pa.types.is_fixed_size_binary(kind):
            out[name] = from_bytes(table, name)
        elif pa.types.is_string(kind) or pa.types.is_binary(kind):
            out[name] = table.column(name).to_pylist()
        else:
            out[name] = table.column(name).to_numpy()
    return out


def with_scales(present: Collection[str], columns: Sequence[str]) -> list[str]:
    """Columns, and the scales of those that are in 8 bits, of a shard that has ``present``."""
    return [*columns, *(f"{n}_scale" for n in columns if f"{n}_scale" in present)]


def _names_of(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def restored(columns: Columns) -> Columns:
    """Columns with 8-bit values as half precision."""
    scales = {name for name in columns if name.endswith("_scale")}
    out = {name: value for name, value in columns.items() if name not in scales}
    for name in scales:
        coded = name.removesuffix("_scale")
        out[coded] = restore(np.asarray(columns[coded]), np.asarray(columns[name]))
    return out


@dataclass(frozen=True)
class AlignedShards:
    """Several folders read as one: each with the columns that are wanted of it.

    Where ``kept`` is among the columns of a folder, rows are left out for which it is false.

    Attributes:
        folders: folder -> columns. ``key`` is read of each and compared.
        split: train, validation or test.
    """

    folders: Mapping[Path, Sequence[str]]
    split: str

    def names(self) -> list[str]:
        """Shard names, the same in every folder.

        Raises:
            ShardError: a folder lacks shards that another has, or there are none.
        """
        found = {folder: shard_names(folder, self.split) for folder in self.folders}
        first, expected = next(iter(found.items()))
        for folder, names in found.items():
            odd = sorted(set(names) ^ set(expected))
            if odd:
                raise ShardError(
                    f"{folder} and {first} do not have the same shards: {odd[:3]} is in only one "
                    "of them; delete the artifact that is short and run its stage"
                )
        if not expected:
            raise ShardError(f"{first} has no shards of the split {self.split!r}")
        return expected

    def rows(self) -> list[int]:
        """Number of rows of each shard, from the footers and from ``kept`` alone."""
        for folder, columns in self.folders.items():
            if KEPT in columns:
                kept = [read_table(folder / name, [KEPT]).column(KEPT) for name in self.names()]
                return [int(np.count_nonzero(column.to_numpy())) for column in kept]
        folder = next(iter(self.folders))
        return [rows_of(folder / name) for name in self.names()]

    def check(self) -> None:
        """Compare the keys of all folders, shard by shard, before anything depends on them.

        Raises:
            ShardError: a shard is missing, unreadable or not aligned; names it and the remedy.
        """
        keys_only = AlignedShards({folder: [] for folder in self.folders}, self.split)
        for name in self.names():
            keys_only.read(name)
            for folder, columns in self.folders.items():
                odd = set(columns) - set(_names_of(folder / name))
                if odd:
                    raise ShardError(f"{folder / name} has no column {sorted(odd)}")

    def read(self, name: str, raw: bool = False) -> Columns:
        """The wanted columns of one shard.

        Args:
            raw: leave 8-bit columns as they are stored, each with its ``<name>_scale``.

        Raises:
            ShardError: the keys of two folders differ.
        """
        joined: Columns = {}
        keys: list[str] | None = None
        for folder, columns in self.folders.items():
            present = _names_of(folder / name) if columns else ()
            table = read_table(folder / name, ["key", *with_scales(present, columns)])
            found = table.column("key").to_pylist()
            if keys is not None and found != keys:
                row = next(
                    (i for i, (a, b) in enumerate(zip(found, keys, strict=False)) if a != b),
                    min(len(found), len(keys)),
                )
                raise ShardError(
                    f"{folder / name} is not aligned: row {row} differs from the same row of "
                    f"{next(iter(self.folders)) / name}; delete it and run its stage"
                )
            keys = found
            joined |= columns_of(table)
        if KEPT in joined:
            joined = take(joined, np.flatnonzero(joined.pop(KEPT)))
        return joined if raw else restored(joined)

    def all(self) -> Columns:
        """Every row of the split in order: for the small held-out splits only."""
        return concatenate([self.read(name) for name in self.names()])

    def first(self, rows: int) -> Columns:
        """The first rows of the split, or all where there are fewer."""
        parts: list[Columns] = []
        found = 0
        for name in self.names():
            parts.append(self.read(name))
            found += len(parts[-1]["key"])
            if found >= rows:
                break
        return take(concatenate(parts), np.arange(min(rows, found)))


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Join the rows of several shards."""
    first = parts[0]
    return {
        name: np.concatenate([np.asarray(p[name]) for p in parts])
        if isinstance(first[name], np.ndarray)
        else [value for p in parts for value in p[name]]
        for name in first
    }


def take(columns: Columns, rows: npt.NDArray[np.int64]) -> Columns:
    """Some rows, in the given order."""
    return {
        name: value[rows] if isinstance(value, np.ndarray) else [value[i] for i in rows]
        for name, value in columns.items()
    }
