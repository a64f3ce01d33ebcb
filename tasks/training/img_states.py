"""The [IMG] states of every caption: constants once the adapters are trained."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from data import schemas
from data.artifacts import ImageShards, TrainedAdapters
from data.io.atomic import write_json
from data.shards import as_bytes, read_table
from gill.data_parallel import WorkerGroup
from gill.model import GillModel
from tasks.runner.backfill import Backfill, made_of
from tasks.runner.shard_map import map_shards
from tasks.tracking.stage_log import StageLog
from tasks.training.loop import MADE_WITH


def write_img_states(
    model: GillModel,
    images: ImageShards,
    out: Path,
    log: StageLog,
    batch_size: int,
    without: Collection[str] = (),
    identity: str = "",
    donors: Sequence[Path] = (),
) -> None:
    """Write ``states/<shard>`` for the image shards of all splits but those in ``without``.

    Every worker calls this; they share the shards. Those that an earlier process wrote are kept if
    it had the same E_img: a training that is done again may end a little elsewhere. So are those of
    the artifacts ``donors`` whose stage was the same (``identity``), and their E_img and captions.
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
    if workers.first:
        mark = _mark(model)
        _keep_only_those_of(mark, out)
        if identity:
            wanted = made_of(f"{identity} {mark}", images, TrainedAdapters.STATES, names)
            Backfill(out, wanted, donors)(log)
    workers.barrier()
    map_shards(log, images.folder, target, "[IMG] states", convert, names, workers)


def _mark(model: GillModel) -> dict[str, str]:
    weights = model.adapters.img_tokens.weight.detach().float().cpu().numpy()
    return {"img_tokens": hashlib.sha256(weights.tobytes()).hexdigest()}


def _keep_only_those_of(mark: dict[str, str], out: Path) -> None:
    record = out / f"{TrainedAdapters.STATES}_{MADE_WITH}"
    with suppress(OSError, ValueError):
        if json.loads(record.read_bytes()) == mark:
            return
    if (out / TrainedAdapters.STATES).exists():
        shutil.rmtree(out / TrainedAdapters.STATES)
    write_json(record, mark)
