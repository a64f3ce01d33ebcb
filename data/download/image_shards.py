"""Image shards as they are filled: images wait on disk, not in memory, and come out in order.

A shard ``train-00003`` is ``images/train-00003.parquet``, ``failures/train-00003.parquet`` and
``stats/train-00003.json``. The last is written last: a shard that has all three is finished. A
later pass over the failures replaces them in the same order, so that a kill in between leaves at
worst a failure that is an image too; the next pass sees that and drops the failure.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.download.atomic_store import Store
from data.download.image_codec import EncodedImage
from data.io.atomic import unwritten
from data.sources.base import printable

IMAGES, FAILURES, STATS = "images", "failures", "stats"
_TEXTS = ("key", "caption", "origin", "source")
_GROUP_ROWS, _GROUP_BYTES = 256, 4 << 20  # a row group is as large as either says
COMPRESSION = {  # images are compressed already
    field.name: "none" if field.name == "image" else "zstd" for field in schemas.IMAGES
}


@dataclass(frozen=True)
class Row:
    """One row of a list on its way to a shard; ``reason`` is set for a row that cannot be read."""

    key: str
    caption: str
    origin: str
    source: str
    reason: str = ""
    truth: str = ""

    def texts(self) -> dict[str, str]:
        """Its columns, as they can be stored."""
        return {name: printable(getattr(self, name)) for name in _TEXTS}


def shard_name(split: str, number: int) -> str:
    """``train-00003``."""
    return f"{split}-{number:05d}"


class OpenShard:
    """A shard while its rows arrive in any order.

    Args:
        passes: how many passes over failures this shard will have had, 0 for the first fetch.
        in_order: the rows come in the order in which they are to be written.
    """

    def __init__(self, store: Store, name: str, passes: int = 0, in_order: bool = False) -> None:
        self.store, self.name, self.passes, self.in_order = store, name, passes, in_order
        folder = Path(store.path(IMAGES)) if store.local else Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed in finish or close
        self._began = time.monotonic()
        self._bytes = 0
        self._good: list[tuple[Row, dict[str, Any], tuple[int, int]]] = []
        self._failed: list[dict[str, Any]] = []

    def keep(self, data: bytes) -> tuple[int, int]:
        """Put the bytes of an image aside; returns their place for ``add``."""
        offset = self._spool.tell()
        try:
            self._spool.write(data)
        except OSError as error:
            raise unwritten(self.store.path(self.name), error) from error
        return offset, len(data)

    def add(self, row: Row, raw: bytes, image: EncodedImage, place: tuple[int, int]) -> None:
        """An image, of which ``keep`` has the bytes. ``raw`` is what was sent."""
        self._bytes += len(raw)
        described = {
            "width": image.width,
            "height": image.height,
            "original_width": image.original_width,
            "original_height": image.original_height,
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
        self._good.append((row, described, place))

    def fail(self, row: Row, reason: str, detail: str = "", retry_at: float = 0.0) -> None:
        """A row that became no image."""
        self._failed.append(
            {
                **row.texts(),
                "reason": printable(reason),
                # Headers of an answer are bytes; those that are not UTF-8 stand for no text.
                "detail": printable(detail),
                "retry_at": retry_at,
            }
        )

    def finish(self, noted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the three files and return the statistics.

        Args:
            noted: what else the statistics are to say.

        Raises:
            WriteError: there is no room; nothing with a final name was changed by the failed write.
        """
        images, failures = f"{IMAGES}/{self.name}.parquet", f"{FAILURES}/{self.name}.parquet"
        before = self._before(images) if self.passes else schemas.IMAGES.empty_table()
        if not self.in_order:
            self._good.sort(key=lambda g: g[0].key)
            self._failed.sort(key=lambda f: f["key"])
        table = pa.Table.from_pylist(self._failed, schema=schemas.FAILURES)
        digests = {
            images: self.store.write(images, lambda handle: self._write_images(handle, before)),
            failures: self.store.write(failures, lambda h: write_failures(h, table)),
        }
        reasons = Counter(f["reason"] for f in self._failed)
        stats = {
            "name": self.name,
            "passes": self.passes,
            "rows": len(before) + len(self._good) + len(self._failed),
            "good": len(before) + len(self._good),
            "failures": dict(sorted(reasons.items())),
            "bytes_fetched": self._bytes,
            "seconds": round(time.monotonic() - self._began, 3),
            "finished": time.time(),
            "made_by": f"{platform.node()}/{os.getppid()}",  # the process that has the workers
            "sha256": {name: digest for name, digest in digests.items() if digest},
            **(noted or {}),
        }
        self.store.write_json(f"{STATS}/{self.name}.json", stats)
        self.close()
        return stats

    def close(self) -> None:
        """Let go of what was put aside; it has no name, so nothing is left of it."""
        with suppress(OSError):  # a full disk refuses the last bytes of a file nobody will read
            self._spool.close()

    def _before(self, images: str) -> pa.Table:
        with self.store.open(images) as handle:
            return pq.read_table(handle)

    def _write_images(self, handle: IO[bytes], before: pa.Table) -> None:
        if len(before):
            joined = pa.concat_tables([before, *self._tables()]).sort_by("key")
            write_images(handle, joined.to_batches(max_chunksize=_GROUP_ROWS))
        else:
            write_images(handle, self._tables())

    def _tables(self) -> Iterator[pa.Table]:
        self._spool.flush()
        rows: list[dict[str, Any]] = []
        size = 0
        for row, described, (offset, length) in self._good:
            rows.append(
                {
                    **row.texts(),
                    "truth": row.truth,
                    "image": os.pread(self._spool.fileno(), length, offset),
                    **described,
                }
            )
            size += length
            if len(rows) == _GROUP_ROWS or size > _GROUP_BYTES:
                yield pa.Table.from_pylist(rows, schema=schemas.IMAGES)
                rows, size = [], 0
        if rows:
            yield pa.Table.from_pylist(rows, schema=schemas.IMAGES)


def finished_shards(store: Store) -> set[str]:
    """Names of the shards that have all of their files."""
    found = {
        folder: {name.removesuffix(suffix) for name in store.names(folder, suffix)}
        for folder, suffix in ((IMAGES, ".parquet"), (FAILURES, ".parquet"), (STATS, ".json"))
    }
    return found[IMAGES] & found[FAILURES] & found[STATS]


def write_failures(handle: IO[bytes], table: pa.Table) -> None:
    """Write a failures shard."""
    pq.write_table(table, handle, compression="zstd", write_page_checksum=True)


def write_images(handle: IO[bytes], parts: Iterable[pa.Table | pa.RecordBatch]) -> None:
    """Write an image shard, one row group for each part."""
    with pq.ParquetWriter(
        handle,
        schemas.IMAGES,
        compression=COMPRESSION,
        use_dictionary=["source"],  # images do not repeat, and hashing them is not free
        write_page_checksum=True,
    ) as writer:
        for part in parts:
            writer.write(part)


def failed_rows(store: Store, name: str) -> list[tuple[Row, str, str, float]]:
    """Rows of a finished shard that became no image, each with reason, detail and retry time."""
    with store.open(f"{IMAGES}/{name}.parquet") as handle:
        have = set(pq.read_table(handle, columns=["key"]).column("key").to_pylist())
    with store.open(f"{FAILURES}/{name}.parquet") as handle:
        failures = pq.read_table(handle).to_pylist()
    return [
        (
            Row(f["key"], f["caption"], f["origin"], f["source"]),
            f["reason"],
            f["detail"],
            f["retry_at"],
        )
        for f in failures
        if f["key"] not in have
    ]
