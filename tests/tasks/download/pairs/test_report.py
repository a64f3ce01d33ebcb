"""The report of the pairs, of small shards with a leak."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from small_store import SmallStore

from data.shards import as_bytes, from_bytes, write_shard
from gill.backbones.testing import micro_models
from tasks.download.pairs.report import PairsReport
from tasks.tracking.stage_log import ConsoleLog


def scene(seed):
    small = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
    return encoded(Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC), "PNG")


def encoded(image, kind, **how):
    held = io.BytesIO()
    image.save(held, kind, **how)
    return held.getvalue()


@pytest.fixture
def store(tmp_path):
    """Two leaks and a duplicate.

    The first test image has the bytes of the fourth training image; the third validation image has
    the features of the sixth training image; two training images look alike.
    """
    store = SmallStore(tmp_path)
    leak, twin = scene(1), scene(2)
    files = {
        "test/0": leak, "train/3": leak, "train/8": twin,
        "train/9": encoded(Image.open(io.BytesIO(twin)).resize((300, 200)), "WEBP", lossless=True),
    }  # fmt: skip
    for number, name in enumerate(store.images.names()):
        table = store.images.read(name)
        keys = table.column("key").to_pylist()
        digests = [f"{100 * number + row + 1:064x}"[::-1] for row in range(len(table))]
        digests = [
            "f" * 64 if files.get(k) is leak else d for k, d in zip(keys, digests, strict=True)
        ]
        held = table.column("image").to_pylist()
        held = [files.get(key, old) for key, old in zip(keys, held, strict=True)]
        for column, values in (("sha256", digests), ("image", held)):
            at = table.column_names.index(column)
            table = table.set_column(
                at, table.schema.field(at), pa.array(values, table.field(at).type)
            )
        write_shard(store.images.folder / name, table)
    name = "validation-00000.parquet"
    table = store.features.read(name)
    values = from_bytes(table, "feature").copy()
    values[2] = store.features_of["train"][5]
    write_shard(store.features.folder / name, table.set_column(1, table.field(1), as_bytes(values)))
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
    assert headlines["leaked_or_alike_images"] == 2
    again = report["comes_again"]
    assert {kind: of["counts"] for kind, of in again.items()} == {
        "bytes": {"test in train": 1},
        "hash": {"test in train": 1, "train in train": 1},
        "features": {"validation in train": 1},
    }
    assert again["bytes"]["named"] == [["test/0", "train/3", 0.0]]
    assert again["hash"]["named"] == [["test/0", "train/3", 0.0], ["train/8", "train/9", 0.0]]
    assert [sorted(pair[:2]) for pair in again["features"]["named"]] == [
        ["train/5", "validation/2"]
    ]
    assert report["leaks"] == [
        ["test/0", "train/3", "bytes, hash"], ["validation/2", "train/5", "features"],
    ]  # fmt: skip
    assert sum(train["similarity_histogram"].values()) == 12
    texts = encoder.text(store.captions["train"])
    tables = [store.features.read(name) for name in store.features.names("train")]
    pooled = np.concatenate([from_bytes(t, "feature") for t in tables]).astype(np.float32)
    plain = (texts * encoder.project(torch.from_numpy(pooled))).sum(-1)
    assert headlines["similarity_train"] == pytest.approx(float(plain.mean()), abs=1e-5)
    page = (tmp_path / "out" / "pairs.html").read_text()
    assert "<td>test/0</td><td>train/3</td><td>bytes, hash</td>" in page


def test_a_sample_of_the_pairs_is_what_costs(store, tmp_path):
    _, report, _ = reported(store, tmp_path, sampled=2)
    assert report["splits"]["train"]["pairs"] == 12
    assert report["splits"]["train"]["words"]["mean"] > 0
    assert report["similarity"].startswith("cosine")
    assert {split: of["sampled"] for split, of in report["splits"].items()} == {
        "train": 2, "test": 2, "validation": 2
    }  # fmt: skip


def test_the_sample_is_no_larger_than_a_split(store, tmp_path):
    _, report, _ = reported(store, tmp_path)
    assert {split: of["sampled"] for split, of in report["splits"].items()} == {
        "train": 12, "test": 6, "validation": 6
    }  # fmt: skip
    assert (
        "Sample: train 12, test 6, validation 6 pairs." in (tmp_path / "out/pairs.html").read_text()
    )


def test_a_vision_part_without_a_text_tower_has_no_similarity(store, tmp_path):
    encoder = micro_models.vision_encoder()
    encoder.model.encode_text = None
    report = PairsReport(store.images, store.features.folder, encoder)
    assert "similarity_train" not in report.write(tmp_path / "out", ConsoleLog())
    assert "has no text tower" in (tmp_path / "out" / "pairs.html").read_text()
