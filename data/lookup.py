"""From a key to its row: the look-up in a folder of shards.

The keys are read once, one narrow column of each shard, and held as 64-bit hashes with their
positions: 16 bytes a row, 53 MB for CC3M's 3.3 million. A hash only says where to look; the key
that stands there decides. Of the shards only the batches that hold a wanted row are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.shards import (
    Columns,
    ShardError,
    columns_of,
    concatenate,
    restored,
    shard_names,
    take,
    unreadable,
    with_scales,
)

_BATCH = 256  # rows that are decoded at once
_BUFFER = 1 << 16  # bytes read at once; without it a whole column of a row group is


class MissingKeyError(ShardError):
    """Keys that no row has.

    Attributes:
        keys: all of them.
    """

    def __init__(self, folder: Path, keys: Collection[str], asked: int) -> None:
        self.keys = list(keys)
        super().__init__(
            f"{len(self.keys)} of {asked} keys are in no shard of {folder}, the first is "
            f"{self.keys[0]!r}; they were taken from an artifact of other data"
        )


@dataclass(frozen=True)
class ShardLookup:
    """The rows of a folder of shards by their keys.

    Attributes:
        folder: where the shards lie.
        names: of the shards, in the order of their rows.
        known: the keys of all rows in order, where somebody holds them already (the index of
            retrieval); then no key column is read, and a row with another key is an error.
        kind: the schema's name, checked when given.
    """

    folder: Path
    names: Sequence[str]
    known: Sequence[str] | None = None
    kind: str = ""

    @classmethod
    def of(cls, folder: Path, split: str | None = None, kind: str = "") -> ShardLookup:
        """The look-up in the shards of one split or of all.

        Raises:
            ShardError: the folder has none.
        """
        names = shard_names(folder, split)
        if not names:
            raise ShardError(f"{folder} has no shards" + (f" of the split {split!r}" * bool(split)))
        return cls(folder, names, kind=kind)

    def __len__(self) -> int:
        """Number of rows, from the footers alone."""
        return self._starts[-1]

    def __contains__(self, key: str) -> bool:
        """Whether a row has this key."""
        try:
            self.rows([key])
        except MissingKeyError:
            return False
        return True

    def rows(self, keys: Sequence[str], columns: Sequence[str] = ()) -> Columns:
        """The rows of some keys in their order, 8-bit columns as half precision.

        Args:
            keys: any of them may be asked twice. columns: beside ``key``.

        Raises:
            MissingKeyError: a key has no row; names all of them.
            ShardError: a shard is missing, damaged or not aligned with the known keys, it lacks a
                column, or a key stands in two rows.
        """
        parts = list(self.batches(keys, columns))
        if not parts:
            return {"key": []}
        found = concatenate(parts)
        at = {key: row for row, key in enumerate(found["key"])}
        return take(found, np.array([at[key] for key in keys], np.int64))

    def batches(self, keys: Collection[str], columns: Sequence[str] = ()) -> Iterator[Columns]:
        """The rows of some keys in the order of the shards, a batch at a time; see ``rows``."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, str] = {}
        for shard, places in sorted(self._places(wanted).items()):
            for rows in self._read(self.names[shard], places, columns):
                for key in rows["key"]:
                    if key in found:
                        raise ShardError(
                            f"the key {key!r} stands in two rows, in {found[key]} and "
                            f"{self.names[shard]} of {self.folder}; keys must differ"
                        )
                    found[str(key)] = self.names[shard]
                yield rows
        if len(found) < len(wanted):
            missing = [key for key in wanted if key not in found]
            raise MissingKeyError(self.folder, missing, len(wanted))

    def value(self, key: str, column: str) -> object:
        """One value of one row, see ``rows``."""
        return self.rows([key], [column])[column][0]

    @cached_property
    def _starts(self) -> list[int]:
        counts = []
        for name in self.names:
            with self._open(name) as file:
                counts.append(file.metadata.num_rows)
        return [0, *accumulate(counts)]

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Hashes of the keys in ascending order, and the row of each."""
        hashes = np.fromiter((hash(key) for key in self._keys()), np.int64)
        if len(hashes) != len(self):
            raise ShardError(
                f"{self.folder} has {len(self)} rows for {len(hashes)} known keys; it does not "
                "line up with what they were taken from: run the stage of that again"
            )
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _keys(self) -> Iterator[str]:
        if self.known is not None:
            yield from self.known
            return
        for name in self.names:
            with self._open(name) as file:
                yield from file.read(columns=["key"]).column("key").to_pylist()

    def _places(self, keys: Sequence[str]) -> Mapping[int, dict[int, set[str]]]:
        """Shard -> row in it -> keys of ``keys`` that may stand there."""
        hashes, order = self._sorted
        asked = np.fromiter((hash(key) for key in keys), np.int64, len(keys))
        first, last = (np.searchsorted(hashes, asked, side) for side in ("left", "right"))
        places: defaultdict[int, dict[int, set[str]]] = defaultdict(dict)
        for key, begin, end in zip(keys, first.tolist(), last.tolist(), strict=True):
            for row in order[begin:end].tolist():
                shard = int(np.searchsorted(self._starts, row, "right")) - 1
                places[shard].setdefault(row - self._starts[shard], set()).add(key)
        return places

    def _read(
        self, name: str, places: Mapping[int, set[str]], columns: Sequence[str]
    ) -> Iterator[Columns]:
        """The rows at some places of a shard, batch by batch, with the keys that were sought."""
        wanted = sorted(places)
        with self._open(name) as file:
            names = ["key", *with_scales(file.schema_arrow.names, columns)]
            lacking = sorted(set(names) - set(file.schema_arrow.names))
            if lacking:
                raise ShardError(f"{self.folder / name} has no column {lacking}")
            for start, batch in _batches_with(file, wanted, names):
                here = [row for row in wanted if start <= row < start + len(batch)]
                table = pa.Table.from_batches([batch]).take([row - start for row in here])
                keys = table.column("key").to_pylist()
                meant = [key in places[row] for row, key in zip(here, keys, strict=True)]
                if self.known is not None and not all(meant):
                    row = here[meant.index(False)]
                    raise ShardError(
                        f"{self.folder / name} is not aligned: row {row} has the key "
                        f"{keys[meant.index(False)]!r}, not {sorted(places[row])}; delete it and "
                        "run its stage, then the stages after it"
                    )
                if any(meant):  # of others only the hash is the same
                    yield restored(columns_of(table.filter(pa.array(meant))))

    @contextmanager
    def _open(self, name: str) -> Iterator[pq.ParquetFile]:
        """A shard to read from; whatever is wrong with it is said with its path."""
        path = self.folder / name
        try:
            with pq.ParquetFile(
                path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
            ) as file:
                if self.kind:
                    schemas.check(file.schema_arrow, self.kind, str(path))
                yield file
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(path, error) from error


def _batches_with(
    file: pq.ParquetFile, rows: Sequence[int], columns: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches that hold some rows, each with the number of its first row."""
    left, start = list(rows), 0
    for group in range(file.num_row_groups):
        count, end = file.metadata.row_group(group).num_rows, start
        if left and left[0] < start + count:
            for batch in file.iter_batches(_BATCH, [group], columns):
                if left and left[0] < end + len(batch):
                    yield end, batch
                    left = [row for row in left if row >= end + len(batch)]
                end += len(batch)
                if not left or left[0] >= start + count:
                    break
        start += count
