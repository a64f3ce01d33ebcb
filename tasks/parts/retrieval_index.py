"""The retrieval maps and the index of images, without the rest of the adapters."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from data.artifacts import RetrievalIndex, TrainedAdapters
from data.shards import matrix, read_table, rows_of, shard_names
from gill.inference.index import EXACT_UP_TO, Index
from gill.retrieval import RetrievalMaps
from tasks.parts.weights import read_weights, with_weights


def load_retrieval_maps(artifact: TrainedAdapters) -> RetrievalMaps:
    """W_t2i and W_i2t, without loading a language model."""
    weights = read_weights(artifact, artifact.adapters_weights)
    own = {
        k.removeprefix("retrieval."): v for k, v in weights.items() if k.startswith("retrieval.")
    }
    width, llm_dim = own["text.weight"].shape
    return with_weights(partial(RetrievalMaps, llm_dim, own["image.weight"].shape[1], width), own)


def load_index(artifact: RetrievalIndex) -> Index:
    """Read an index; one that will be searched by codes is kept in half precision."""
    return read_index(artifact.folder)


def read_index(folder: Path) -> Index:
    """Read a folder of embedding shards."""
    names = shard_names(folder)
    rows = sum(rows_of(folder / name) for name in names)
    dtype = torch.float32 if rows <= EXACT_UP_TO else torch.float16
    keys: list[str] = []
    vectors = torch.empty(0)
    for name in names:
        table = read_table(folder / name, kind=RetrievalIndex.SCHEMA)
        part = torch.from_numpy(np.array(matrix(table, "embedding")))
        if not keys:
            vectors = torch.empty(rows, part.shape[1], dtype=dtype)
        vectors[len(keys) : len(keys) + len(part)] = part
        keys += table.column("key").to_pylist()
    return Index(keys, vectors)
