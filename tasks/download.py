"""Stage 1: image-caption pairs into image shards."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from data import schemas
from data.artifacts import write_json
from data.shards import read_table, shard_names, write_shard
from data.sources import EmbeddedPack, Pair, Source
from tasks.config import DownloadConfig
from tasks.stage import StageContext

IMAGES = "images"


def source_of(config: DownloadConfig) -> Source:
    """The source that a recipe names."""
    return EmbeddedPack(limit=config.limit)


def run(context: StageContext) -> dict[str, float]:
    """Write ``images/<split>-<number>.parquet`` and ``stats.json``."""
    config: DownloadConfig = context.config
    source, folder = source_of(config), context.out / IMAGES
    dropped: Counter[str] = Counter()
    written = 0
    for split in source.splits():
        pairs = source.pairs(split)
        number = 0
        while chunk := list(islice(pairs, config.shard_size)):
            path = folder / f"{split}-{number:05d}.parquet"
            if not path.exists():
                write_shard(path, _table(chunk, dropped))
            written += len(chunk)
            number += 1
            context.log.progress(written, written, "pairs")
    rows = {s: _rows(folder, s) for s in source.splits()}
    write_json(context.out / "stats.json", {"rows": rows, "dropped": dict(dropped)})
    context.log.table("sample", _sample(folder))
    metrics = {f"{split}_pairs": float(count) for split, count in rows.items()}
    return {**metrics, "dropped": float(sum(dropped.values()))}


def _table(pairs: list[Pair], dropped: Counter[str]) -> pa.Table:
    rows = []
    for pair in pairs:
        try:
            with Image.open(io.BytesIO(pair.image)) as image:
                width, height = image.size
        except UnidentifiedImageError:
            dropped["not_image"] += 1
            continue
        rows.append(
            {
                "key": pair.key,
                "caption": pair.caption,
                "origin": pair.origin,
                "source": pair.source,
                "image": pair.image,
                "width": width,
                "height": height,
                "sha256": hashlib.sha256(pair.image).hexdigest(),
            }
        )
    return pa.Table.from_pylist(rows, schema=schemas.IMAGES)


def _rows(folder: Path, split: str) -> int:
    return sum(len(read_table(folder / n, ["key"])) for n in shard_names(folder, split))


def _sample(folder: Path, count: int = 24) -> dict[str, list[object]]:
    table = read_table(folder / shard_names(folder)[0], ["key", "caption", "image"])
    rows = table.slice(0, count).to_pylist()
    return {
        "picture": [Image.open(io.BytesIO(r["image"])).convert("RGB") for r in rows],
        "caption": [r["caption"] for r in rows],
        "key": [r["key"] for r in rows],
    }
