"""Stage 6: the image side of retrieval: unit vectors of the images that can be retrieved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from data import schemas
from data.artifacts import Artifact
from data.shards import from_bytes, lists, matrix, read_table, shard_names, write_shard
from gill.inference.index import EXACT_UP_TO, Index
from gill.retrieval import RetrievalMaps
from tasks.config.data import IndexConfig
from tasks.runner.context import StageContext
from tasks.stages.clip_features import FEATURES

EMBEDDINGS = "embeddings"


def retrieval_maps(adapters: Artifact) -> RetrievalMaps:
    """W_t2i and W_i2t of an adapters artifact, without loading a language model."""
    weights = load_file(adapters.file("adapters.safetensors"))
    own = {
        k.removeprefix("retrieval."): v for k, v in weights.items() if k.startswith("retrieval.")
    }
    width, llm_dim = own["text.weight"].shape
    maps = RetrievalMaps(llm_dim, own["image.weight"].shape[1], width)
    maps.load_state_dict(own)
    return maps.requires_grad_(False).eval()


def run(context: StageContext) -> dict[str, float]:
    """Write ``embeddings/<shard>`` for the shards of the indexed splits."""
    config: IndexConfig = context.config
    maps = retrieval_maps(context.inputs["adapters"])
    folder = context.inputs["clip_features"].file(FEATURES)
    names = [name for split in config.splits for name in shard_names(folder, split)]
    if not names:
        raise ValueError(f"index.splits {config.splits} names no shards of {folder}")
    count = 0
    for done, name in enumerate(names, 1):
        table = read_table(folder / name, kind="features")
        feature = torch.from_numpy(np.asarray(from_bytes(table, "feature"), np.float32))
        vectors = maps.embed_image(feature).numpy()
        schema = schemas.embeddings(vectors.shape[1])
        columns = [table.column("key"), lists(vectors, np.float32)]
        write_shard(context.out / EMBEDDINGS / name, pa.table(columns, schema=schema))
        count += len(table)
        context.log.progress(done, len(names), "shards")
    return {"images": float(count), "dim": float(vectors.shape[1])}


def load(artifact: Artifact) -> Index:
    """Read an index artifact; one that will be searched by codes is kept in half precision."""
    return read_index(artifact.file(EMBEDDINGS))


def read_index(folder: Path) -> Index:
    """Read a folder of embedding shards."""
    names = shard_names(folder)
    rows = sum(pq.read_metadata(folder / name).num_rows for name in names)
    dtype = torch.float32 if rows <= EXACT_UP_TO else torch.float16
    keys: list[str] = []
    vectors = torch.empty(0)
    for name in names:
        table = read_table(folder / name, kind="embeddings")
        part = torch.from_numpy(np.array(matrix(table, "embedding")))
        if not keys:
            vectors = torch.empty(rows, part.shape[1], dtype=dtype)
        vectors[len(keys) : len(keys) + len(part)] = part
        keys += table.column("key").to_pylist()
    return Index(keys, vectors)
