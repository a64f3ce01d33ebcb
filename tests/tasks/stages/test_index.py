"""The stage index on features of a few rows."""

import pytest
import torch
from small_store import SmallStore, tiny_context

from tasks.config.data import IndexConfig
from tasks.parts.retrieval_index import load_index
from tasks.stages.index import run


@pytest.fixture
def store(tmp_path):
    store = SmallStore(tmp_path)
    store.trained()
    return store


def made(store, out, *splits):
    return run(tiny_context(IndexConfig(splits=splits), out), store.features, store.adapters)


def test_the_index_holds_the_splits_in_their_order_as_unit_vectors(store, tmp_path):
    artifact = made(store, tmp_path / "index", "test", "validation")
    assert artifact.metrics == {"images": 12.0, "dim": 8.0}
    index = load_index(artifact)
    assert sorted(index.keys) == sorted([*store.keys("test"), *store.keys("validation")])
    maps = store.trained().retrieval
    for key, vector in zip(index.keys, index.vectors, strict=True):
        split, _, row = key.partition("/")
        feature = torch.from_numpy(store.features_of[split][int(row)]).float()
        expected = maps.embed_image(feature[None])[0].detach()
        torch.testing.assert_close(vector, expected, atol=1e-6, rtol=1e-5)
        assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)


def test_a_split_without_shards_is_refused_by_name(store, tmp_path):
    with pytest.raises(
        ValueError, match=r"index\.splits \('held',\) names no shards of .*features"
    ):
        made(store, tmp_path / "index", "held")
