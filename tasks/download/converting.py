"""Image shards of a source that holds the images themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from data.download.atomic_store import Store
from data.download.image_codec import EncodedImage, process
from data.download.image_shards import OpenShard, Row, finished_shards, shard_name
from data.download.settings import ImageRules
from data.faults import Tolerance
from data.io.image_decoder import ImageError
from data.sources.base import Pair, Rejected, Source
from tasks.config.download import DownloadConfig
from tasks.tracking.stage_log import StageLog


def convert(config: DownloadConfig, source: Source, out: Path, log: StageLog) -> None:
    """Write what is not there yet of image shards, failures and statistics.

    Raises:
        SystematicFaultError: unexpected exceptions at so many images that it is not theirs.
    """
    store, rules = Store(str(out)), ImageRules.of(config)
    store.sweep()
    faults, finished, seen = Tolerance("images"), finished_shards(store), 0

    def made(row: Pair | Rejected) -> EncodedImage | Exception | None:
        if isinstance(row, Rejected):
            return None
        try:
            return process(row.image or b"", rules)
        except Exception as error:  # noqa: BLE001 one image must not end the others
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in source.splits():
            rows, number = source.pairs(split), 0
            while chunk := list(islice(rows, config.shard_size)):
                name = shard_name(split, number)
                if name not in finished:
                    _write(store, name, zip(chunk, pool.map(made, chunk), strict=True), faults)
                seen += len(chunk)
                number += 1
                log.progress(seen, seen, "pairs")


def _write(
    store: Store,
    name: str,
    rows: Iterator[tuple[Pair | Rejected, EncodedImage | Exception | None]],
    faults: Tolerance,
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
        shard.finish()
    finally:
        shard.close()
