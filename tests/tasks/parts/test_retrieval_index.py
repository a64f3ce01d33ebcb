"""The retrieval maps and the index, read without the rest of a model."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_store import LLM, VISION, SmallStore

from data import schemas
from data.artifacts import RetrievalIndex
from data.shards import lists, write_shard
from tasks.parts import retrieval_index
from tasks.parts.retrieval_index import load_index, load_retrieval_maps


def test_maps_are_those_of_the_trained_adapters(tmp_path):
    store = SmallStore(tmp_path)
    adapters = store.trained()
    with torch.no_grad():
        adapters.retrieval.logit_scale.fill_(3.0)
    from tasks.parts.trained_adapters import save_adapters

    save_adapters(store.adapters.path, adapters)
    maps = load_retrieval_maps(store.adapters)
    states, features = torch.randn(2, 3, LLM), torch.randn(2, VISION)
    assert torch.equal(maps.embed_text(states), adapters.retrieval.embed_text(states))
    assert torch.equal(maps.embed_image(features), adapters.retrieval.embed_image(features))
    assert torch.equal(maps.scale(), adapters.retrieval.scale())
    assert not any(p.requires_grad for p in maps.parameters())
    assert not maps.training


@pytest.fixture
def artifact(tmp_path):
    """An index of two splits in shards of other sizes."""
    made = RetrievalIndex("index", "f", tmp_path)
    vectors = torch.nn.functional.normalize(torch.randn(7, 4), dim=-1).numpy()
    for name, rows in (("test-00000", [0, 1]), ("train-00000", [2, 3, 4]), ("train-00001", [5, 6])):
        columns = [pa.array([f"k{i}" for i in rows]), lists(vectors[rows], np.float32)]
        table = pa.table(columns, schema=schemas.embeddings(4))
        write_shard(tmp_path / RetrievalIndex.FOLDER / f"{name}.parquet", table)
    return made, torch.from_numpy(vectors)


def test_rows_come_in_the_order_of_the_shards(artifact):
    made, vectors = artifact
    index = load_index(made)
    assert list(index.keys) == [f"k{i}" for i in range(7)]
    assert torch.equal(index.vectors, vectors)
    assert [m.key for (m,) in index.nearest(vectors)] == [f"k{i}" for i in range(7)]


def test_what_is_searched_by_codes_is_kept_in_half_the_bytes(artifact, monkeypatch):
    made, vectors = artifact
    monkeypatch.setattr(retrieval_index, "EXACT_UP_TO", 6)
    index = load_index(made)
    assert index.vectors.dtype == torch.float16
    torch.testing.assert_close(index.vectors.float(), vectors, atol=1e-3, rtol=1e-3)


def test_a_shard_of_another_kind_is_refused(artifact):
    made, _ = artifact
    table = pa.table([pa.array(["k"])], schema=pa.schema([("key", pa.string())]))
    write_shard(made.folder / "train-00002.parquet", table)
    with pytest.raises(schemas.SchemaError, match=r"train-00002\.parquet holds none, not embeddin"):
        load_index(made)
