"""Runs a function over the shards of a folder, one output shard each, skipping finished ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.shards import shard_names, write_shard
from gill.parallel import Ranks
from tasks.stage import StageContext


def map_shards(
    context: StageContext,
    source: Path,
    target: Path,
    unit: str,
    convert: Callable[[Path], pa.Table],
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Write ``convert(shard)`` for each shard of ``source`` under the same name in ``target``.

    A shard that is there is whole, since shards are renamed into place; a killed stage therefore
    goes on at the next one. Ranks take turns in the shards, and all wait until the last is written.

    Returns:
        Rows, rows a second of this process, bytes, and the shards that were already there.
    """
    ranks = ranks or Ranks()
    names = shard_names(source)
    rows = [pq.read_metadata(source / name).num_rows for name in names]
    total, done, fresh = sum(rows), 0, 0
    kept = 0
    began = time.monotonic()
    for position, (name, count) in enumerate(zip(names, rows, strict=True)):
        if (target / name).exists():
            kept += 1
        elif position % ranks.size == ranks.rank:
            write_shard(target / name, convert(source / name))
            fresh += count
        done += count
        speed = fresh / max(1e-9, time.monotonic() - began)
        context.log.metrics({"rows_per_second": speed, "rows_done": done}, position)
        context.log.progress(done, total, unit, resumed=done - fresh)
    ranks.barrier()
    return {
        "rows": float(total),
        "rows_per_second": fresh / max(1e-9, time.monotonic() - began),
        "bytes": float(sum((target / name).stat().st_size for name in names)),
        "shards_resumed": float(kept),
    }
