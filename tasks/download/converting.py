"""Image shards of a source that holds the images themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from data.download.atomic_store import Store
from data.download.image_codec import EncodedImage, process
from data.download.image_shards import STATS, OpenShard, Row, finished_shards, shard_name
from data.download.settings import ImageRules
from data.faults import Tolerance
from data.io.image_decoder import ImageError
from data.sources.base import Bookmarks, Pair, Rejected, Source
from tasks.config.download import DownloadConfig
from tasks.tracking.stage_log import StageLog

Item = TypeVar("Item")


def convert(config: DownloadConfig, source: Source, out: Path, log: StageLog) -> None:
    """Write what is not there yet of image shards, failures and statistics.

    Raises:
        SystematicFaultError: unexpected exceptions at so many images that it is not theirs.
    """
    store, rules = Store(str(out)), ImageRules.of(config)
    store.sweep()
    log.progress(0, 0, "pairs")  # its clock runs from here
    faults, seen = Tolerance("images"), 0

    def made(row: Pair | Rejected) -> EncodedImage | Exception | None:
        if isinstance(row, Rejected):
            return None
        try:
            return process(row.image or b"", rules)
        except Exception as error:  # noqa: BLE001 one image must not end the others
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in source.splits():
            begun = _Begun.of(store, split, config.shard_size)
            seen += begun.rows
            for first, last in begun.missing:
                bookmarks = Bookmarks(first * config.shard_size, dict(begun.bookmarks))
                most = None if last is None else (last - first + 1) * config.shard_size
                rows = islice(source.pairs(split, bookmarks), most)
                for number, (chunk, ends) in enumerate(_chunks(rows, config.shard_size), first):
                    pairs = zip(chunk, pool.map(made, chunk), strict=True)
                    noted = {"files": bookmarks.take(), "is_last": ends and last is None}
                    _write(store, shard_name(split, number), pairs, faults, noted)
                    seen += len(chunk)
                    log.progress(seen, seen, "pairs")


@dataclass(frozen=True)
class _Begun:
    """What is there of a split, and where its source goes on.

    Attributes:
        rows: of finished shards. bookmarks: see ``Bookmarks.known``.
        missing: runs of shards that are not there by first and last number; None: as many as come.
    """

    rows: int
    bookmarks: dict[int, int]
    missing: list[tuple[int, int | None]]

    @classmethod
    def of(cls, store: Store, split: str, shard_size: int) -> _Begun:
        """Read what finished shards say."""
        stats = {
            int(name.rpartition("-")[2]): store.read_json(f"{STATS}/{name}.json")
            for name in finished_shards(store)
            if name.rpartition("-")[0] == split
        }
        known = {int(row): file for s in stats.values() for row, file in s.get("files", {}).items()}
        end = 1 + max(stats, default=-1)
        missing: list[tuple[int, int | None]] = []
        for number in range(end):
            if number in stats:
                continue
            if missing and missing[-1][1] == number - 1:
                missing[-1] = (missing[-1][0], number)
            else:
                missing.append((number, number))
        if not stats.get(end - 1, {}).get("is_last"):
            missing.append((end, None))
        return cls(sum(s["rows"] for s in stats.values()), known, missing)


def _chunks(rows: Iterator[Item], size: int) -> Iterator[tuple[list[Item], bool]]:
    """Rows in chunks, and whether each is the last: one row is looked ahead for that.

    A source that fails at the row ahead has still given the chunk.
    """
    ahead = list(islice(rows, 1))
    while ahead:
        chunk = [*ahead, *islice(rows, size - 1)]
        try:
            ahead = list(islice(rows, 1))
        except Exception:
            yield chunk, False
            raise
        yield chunk, not ahead


def _write(
    store: Store,
    name: str,
    rows: Iterator[tuple[Pair | Rejected, EncodedImage | Exception | None]],
    faults: Tolerance,
    noted: dict[str, Any],
) -> None:
    shard = OpenShard(store, name, in_order=True)
    try:
        for pair, image in rows:
            if isinstance(pair, Rejected):
                row = Row(pair.key, pair.caption, pair.place, "")
                shard.fail(row, pair.reason, pair.place)
                continue
            row = Row(pair.key, pair.caption, pair.origin, pair.source, truth=pair.truth)
            if isinstance(image, Exception) and not isinstance(image, ImageError):
                shard.fail(row, faults.unexpected(pair.origin, image), str(image)[:300])
                continue
            faults.expected()
            if isinstance(image, EncodedImage):
                shard.add(row, pair.image or b"", image, shard.keep(image.data))
            elif isinstance(image, ImageError):
                shard.fail(row, image.reason, image.detail)
        shard.finish(noted)
    finally:
        shard.close()
