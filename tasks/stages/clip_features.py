"""Stage 2: open_clip pooled features of every image, one feature shard for each image shard."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data import schemas
from data.artifacts import ClipFeatures, ImageShards
from data.io.image_decoder import any_size, decode
from data.shards import as_bytes, read_table
from gill.backbones.vision import VisionEncoder
from tasks.config.data import ClipFeaturesConfig
from tasks.download.pairs.report import PairsReport
from tasks.download.pairs.similarity import check_text_tower, drop_dissimilar
from tasks.parts.devices import on_each_device
from tasks.parts.loading import load_vision
from tasks.runner.context import StageContext
from tasks.runner.shard_map import ahead, check_room_for_rows, map_shards
from tasks.runner.stage import StageDeclaration

STAGE = StageDeclaration(
    version=3,
    description="Pooled vision features",
    headlines=("rows", "rows_per_second"),
    parts=("vision",),
)


def run(context: StageContext[ClipFeaturesConfig], images: ImageShards) -> ClipFeatures:
    """Write ``features/<shard>`` with the keys of the image shard in the same order.

    Before anything is trained on them, the pairs are looked at: ``pairs.json``, ``pairs.html``.
    Where pairs are to be left out of the training, ``kept/<shard>`` says of each training pair
    whether it stays; features are written of all, so that rows stay aligned.
    """
    target = context.out / ClipFeatures.FOLDER
    runtimes = on_each_device(context.runtime)
    encoders = [load_vision(context.parts.vision, runtime) for runtime in runtimes]
    if context.config.filters:
        check_text_tower(encoders[0])
    dim = encoders[0].pooled_dim
    schema = schemas.features(dim)
    check_room_for_rows(images.folder, target, 2 * dim, "features")
    with ThreadPoolExecutor(os.cpu_count(), "decode") as pool:

        def convert(encoder: VisionEncoder, path: Path) -> pa.Table:
            table = read_table(path, ["key", "image"], ImageShards.SCHEMA)
            files = table.column("image").to_pylist()
            size = context.config.batch_size
            chunks = [files[start : start + size] for start in range(0, len(files), size)]
            parts = [np.empty((0, dim), np.float32)]
            for pixels in ahead(pool, partial(_pixels, encoder), chunks):
                parts.append(encoder.pooled(torch.stack(pixels)).float().cpu().numpy())
            values = as_bytes(np.concatenate(parts).astype(np.float16))
            return pa.table([table.column("key"), values], schema=schema)

        converts = [partial(convert, encoder) for encoder in encoders]
        shards = context.shards
        metrics = map_shards(context.log, images.folder, target, "images", converts, shards)
    if not shards:
        minimum = context.config.minimum_similarity
        dropped = (
            drop_dissimilar(images, target, encoders, minimum, context.out, context.log)
            if context.config.filters
            else {}
        )
        report = PairsReport(images, target, encoders[0], dropped)
        metrics |= report.write(context.out, context.log)
    return ClipFeatures.made(context.out, {**metrics, "dim": float(dim)})


def _pixels(encoder: VisionEncoder, data: bytes) -> Tensor:
    return encoder.prepare([decode(data, any_size)])[0]
