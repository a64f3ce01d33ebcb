"""Stage 2: open_clip pooled features of every image, one feature shard for each image shard."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from data import schemas
from data.shards import lists, read_table
from gill.backbones.vision import VisionEncoder
from tasks.config import ClipFeaturesConfig
from tasks.download import IMAGES
from tasks.frozen import load_vision
from tasks.shardwise import map_shards
from tasks.stage import StageContext

FEATURES = "features"


def run(context: StageContext) -> dict[str, float]:
    """Write ``features/<shard>`` with the keys of the image shard in the same order."""
    config: ClipFeaturesConfig = context.config
    encoder = load_vision(context.parts.vision, context.runtime)
    schema = schemas.features(encoder.pooled_dim)

    def convert(path: Path) -> pa.Table:
        table = read_table(path, ["key", "image"], "images")
        images = table.column("image").to_pylist()
        parts = [np.empty((0, encoder.pooled_dim), np.float32)]
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, len(images), config.batch_size):
                chunk = images[start : start + config.batch_size]
                pixels = torch.stack(list(pool.map(lambda b: _pixels(encoder, b), chunk)))
                parts.append(encoder.pooled(pixels).float().cpu().numpy())
        values = lists(np.concatenate(parts), np.float16)
        return pa.table([table.column("key"), values], schema=schema)

    folder = context.inputs["download"].file(IMAGES)
    metrics = map_shards(context, folder, context.out / FEATURES, "images", convert)
    return {**metrics, "dim": float(encoder.pooled_dim)}


def _pixels(encoder: VisionEncoder, data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return encoder.prepare([image.convert("RGB")])[0]
