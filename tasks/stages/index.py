"""Stage 6: the images that can be retrieved, as unit vectors of the retrieval space."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from data import schemas
from data.artifacts import ClipFeatures, RetrievalIndex, TrainedAdapters
from data.shards import from_bytes, lists, rows_of, write_shard
from tasks.config.data import IndexConfig
from tasks.parts.retrieval_index import load_retrieval_maps
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration

STAGE = StageDeclaration(
    version=1,
    description="The images that can be retrieved",
    headlines=("images",),
    splits=lambda config: config.splits,
)


def run(
    context: StageContext[IndexConfig], features: ClipFeatures, adapters: TrainedAdapters
) -> RetrievalIndex:
    """Write ``embeddings/<shard>`` for the shards of the indexed splits."""
    splits, maps = context.config.splits, load_retrieval_maps(adapters)
    names = [name for split in splits for name in features.names(split)]
    if not names:
        raise ValueError(f"index.splits {splits} names no shards of {features.folder}")
    count, total = 0, sum(rows_of(features.folder / name) for name in names)
    context.log.progress(0, total, "images")
    for name in names:
        table = features.read(name)
        feature = torch.from_numpy(np.asarray(from_bytes(table, "feature"), np.float32))
        vectors = maps.embed_image(feature).numpy()
        schema = schemas.embeddings(vectors.shape[1])
        columns = [table.column("key"), lists(vectors, np.float32)]
        made = pa.table(columns, schema=schema)
        write_shard(context.out / RetrievalIndex.FOLDER / name, made)
        count += len(table)
        context.log.progress(count, total, "images")
    metrics = {"images": float(count), "dim": float(vectors.shape[1])}
    return RetrievalIndex.made(context.out, metrics)
