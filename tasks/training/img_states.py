"""The [IMG] states of every caption: constants once the adapters are trained."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from data import schemas
from data.artifacts import ImageShards, TrainedAdapters
from data.shards import as_bytes, read_table
from gill.data_parallel import WorkerGroup
from gill.model import GillModel
from tasks.runner.shard_map import map_shards
from tasks.tracking.stage_log import StageLog


def write_img_states(
    model: GillModel,
    images: ImageShards,
    out: Path,
    log: StageLog,
    batch_size: int,
    without: Collection[str] = (),
) -> None:
    """Write ``states/<shard>`` for the image shards of all splits but those in ``without``.

    Every worker calls this; they share the shards.
    """
    schema = schemas.img_states(len(model.adapters.img_tokens), model.language.dim)

    def convert(path: Path) -> pa.Table:
        table = read_table(path, ["key", "caption"], ImageShards.SCHEMA)
        captions = model.tokenize(table.column("caption").to_pylist())
        states = model.all_img_states(captions, batch_size).numpy()
        return pa.table([table.column("key"), as_bytes(states.astype(np.float16))], schema=schema)

    names = [name for name in images.names() if name.rpartition("-")[0] not in without]
    target = out / TrainedAdapters.STATES
    workers = WorkerGroup.current()
    map_shards(log, images.folder, target, "[IMG] states", convert, names, workers)
