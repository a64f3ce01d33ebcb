"""The report of the pairs, of small shards with a leak."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_store import SmallStore

from data.shards import from_bytes, write_shard
from gill.backbones.testing import micro_models
from tasks.download.pairs.report import PairsReport
from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture
def store(tmp_path):
    """The first test image has the bytes and the features of the fourth training image."""
    store = SmallStore(tmp_path)
    for number, name in enumerate(store.images.names()):
        table = store.images.read(name)
        digests = [f"{100 * number + row + 1:064x}"[::-1] for row in range(len(table))]
        if name == "test-00000.parquet":
            digests[0] = "f" * 64
        if name == "train-00000.parquet":
            digests[3] = "f" * 64
        at = table.column_names.index("sha256")
        table = table.set_column(at, table.schema.field(at), pa.array(digests))
        write_shard(store.images.folder / name, table)
    return store


def reported(store, tmp_path, **changes):
    encoder = micro_models.vision_encoder()
    report = PairsReport(store.images, store.features.folder, encoder, **changes)
    headlines = report.write(tmp_path / "out", ConsoleLog())
    return headlines, json.loads((tmp_path / "out" / "pairs.json").read_text()), encoder


def test_figures_of_each_split_and_a_leak_by_name(store, tmp_path):
    headlines, report, encoder = reported(store, tmp_path)
    assert headlines["leaked_images"] == 1
    assert {s: of["pairs"] for s, of in report["splits"].items()} == {
        "train": 12, "test": 6, "validation": 6
    }  # fmt: skip
    train = report["splits"]["train"]
    assert train["short_side"]["p50"] == 30
    assert train["scripts"] == {"LATIN": 12}
    assert report["same_bytes"] == {"test in train": 1}
    assert report["same_bytes_named"] == [["test/0", "train/3"]]
    texts = encoder.text(store.captions["train"])
    tables = [store.features.read(name) for name in store.features.names("train")]
    pooled = np.concatenate([from_bytes(t, "feature") for t in tables]).astype(np.float32)
    plain = (texts * encoder.project(torch.from_numpy(pooled))).sum(-1)
    assert headlines["similarity_train"] == pytest.approx(float(plain.mean()), abs=1e-5)
    page = (tmp_path / "out" / "pairs.html").read_text()
    assert "<td>test/0</td><td>train/3</td>" in page


def test_a_sample_of_the_pairs_is_what_costs(store, tmp_path):
    _, report, _ = reported(store, tmp_path, sampled=2)
    assert report["splits"]["train"]["pairs"] == 12
    assert report["splits"]["train"]["words"]["mean"] > 0
    assert report["similarity"].startswith("cosine")


def test_a_vision_part_without_a_text_tower_has_no_similarity(store, tmp_path):
    encoder = micro_models.vision_encoder()
    encoder.model.encode_text = None
    report = PairsReport(store.images, store.features.folder, encoder)
    assert "similarity_train" not in report.write(tmp_path / "out", ConsoleLog())
    assert "has no text tower" in (tmp_path / "out" / "pairs.html").read_text()
