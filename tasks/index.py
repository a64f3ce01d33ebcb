"""Stage 6: the image side of retrieval: unit vectors of the pictures that can be retrieved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from data import schemas
from data.artifacts import Artifact
from data.shards import lists, matrix, read_table, shard_names, write_shard
from gill.retrieval import RetrievalMaps
from tasks.clip_features import FEATURES
from tasks.config import IndexConfig
from tasks.stage import StageContext

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
        feature = torch.from_numpy(np.asarray(matrix(table, "feature"), np.float32))
        vectors = maps.embed_image(feature).numpy()
        schema = schemas.embeddings(vectors.shape[1])
        columns = [table.column("key"), lists(vectors, np.float32)]
        write_shard(context.out / EMBEDDINGS / name, pa.table(columns, schema=schema))
        count += len(table)
        context.log.progress(done, len(names), "shards")
    return {"pictures": float(count), "dim": float(vectors.shape[1])}


@dataclass(frozen=True)
class Index:
    """Keys and unit vectors ``(n, d)`` of the pictures that can be retrieved."""

    keys: list[str]
    vectors: Tensor

    @classmethod
    def load(cls, artifact: Artifact) -> Index:
        """Read an index artifact."""
        folder: Path = artifact.file(EMBEDDINGS)
        keys: list[str] = []
        parts = []
        for name in shard_names(folder):
            table = read_table(folder / name, kind="embeddings")
            keys += table.column("key").to_pylist()
            parts.append(torch.from_numpy(np.array(matrix(table, "embedding"))))
        return cls(keys, torch.cat(parts))

    def nearest(self, queries: Tensor, count: int = 1) -> tuple[list[list[str]], Tensor]:
        """Keys and scores ``(queries, count)`` of the nearest pictures, exactly."""
        scores, rows = (queries @ self.vectors.T).topk(min(count, len(self.keys)), dim=-1)
        return [[self.keys[i] for i in row] for row in rows.tolist()], scores
