"""The stage clip_features on image shards of a few rows."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_store import VISION, SmallStore, images_table, tiny_context

from data import schemas
from data.artifacts import ClipFeatures
from data.io.image_decoder import ImageError
from data.io.journal import files_in
from data.shards import ShardError, from_bytes, read_table, write_shard
from gill.backbones.testing import micro_models
from tasks.config.data import ClipFeaturesConfig
from tasks.stages.clip_features import run


@pytest.fixture
def images(tmp_path):
    """Image shards of three splits, and one of no image."""
    images = SmallStore(tmp_path).images
    write_shard(images.folder / "train-00002.parquet", schemas.IMAGES.empty_table())
    return images


def made(images, out, device="cpu", shards=(), **config):
    return run(tiny_context(ClipFeaturesConfig(**config), out, device, shards), images)


def test_features_are_those_of_the_images_in_their_order(images, tmp_path):
    features = made(images, tmp_path / "out", batch_size=3)
    assert (features.metrics["rows"], features.metrics["dim"]) == (24, VISION)
    assert features.names() == images.names()
    encoder = micro_models.vision_encoder()
    for name in images.names():
        rows, table = images.read(name).to_pylist(), features.read(name)
        assert table.column("key").to_pylist() == [row["key"] for row in rows]
        found = from_bytes(table, "feature")
        for row, feature in zip(rows, found, strict=True):
            image = Image.open(io.BytesIO(row["image"])).convert("RGB")
            expected = encoder.pooled(encoder.prepare([image]))[0].numpy()
            np.testing.assert_allclose(feature, expected, atol=5e-3, rtol=5e-3)


def test_several_devices_write_what_one_writes(images, tmp_path):
    made(images, tmp_path / "one", batch_size=3)
    made(images, tmp_path / "two", device="cpu,cpu", batch_size=3)
    for name in images.names():
        one, two = (read_table(tmp_path / n / ClipFeatures.FOLDER / name) for n in ("one", "two"))
        assert one.equals(two)


def test_finished_shards_are_kept_and_a_worker_of_a_cluster_makes_its_own(images, tmp_path):
    mine = ("test-00001.parquet", "train-00000.parquet")
    features = made(images, tmp_path / "out", shards=mine)
    assert tuple(features.names()) == mine
    stamps = [(features.folder / name).stat().st_mtime_ns for name in mine]
    whole = made(images, tmp_path / "out")
    assert whole.metrics["shards_resumed"] == 2
    assert [(whole.folder / name).stat().st_mtime_ns for name in mine] == stamps
    assert whole.names() == images.names()


def test_a_shard_that_cannot_be_read_is_named(images, tmp_path):
    path = images.folder / "train-00001.parquet"
    data = bytearray(path.read_bytes())
    # Images lie there as they are; the least and the largest are in the statistics too.
    middle = sorted(images.read(path.name).column("image").to_pylist())[3]
    data[data.index(middle) + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"cannot read the shard .*train-00001\.parquet"):
        made(images, tmp_path / "out")


def test_stored_bytes_that_are_no_image_end_the_stage_with_the_reason(images, tmp_path):
    """The download decodes every image; what is no image here came about on the disk."""
    table = images_table(["a"], ["a cat"])
    at = table.column_names.index("image")
    table = table.set_column(at, table.schema.field(at), [[b"no image"]])
    write_shard(images.folder / "train-00003.parquet", table)
    with pytest.raises(ImageError, match="not_image"):
        made(images, tmp_path / "out", shards=("train-00003.parquet",))
    assert not (tmp_path / "out" / ClipFeatures.FOLDER / "train-00003.parquet").exists()


def test_large_images_are_read_too(images, tmp_path):
    """The cap on pixels is against downloads; stored images may be of any size."""
    held = io.BytesIO()
    Image.new("1", (8000, 8000)).save(held, "PNG")
    table = images_table(["a"], ["a cat"])
    at = table.column_names.index("image")
    table = table.set_column(at, table.schema.field(at), [[held.getvalue()]])
    write_shard(images.folder / "train-00003.parquet", table)
    features = made(images, tmp_path / "out", shards=("train-00003.parquet",))
    values = torch.from_numpy(from_bytes(features.read("train-00003.parquet"), "feature").copy())
    assert torch.isfinite(values.float()).all()


def bytes_in(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_in(folder)}


def test_without_a_least_similarity_no_byte_is_another(images, tmp_path):
    """Nor a fingerprint: what was made before there was the setting stays in use."""
    assert ClipFeaturesConfig().fingerprint_fields() == {}
    assert ClipFeaturesConfig(minimum_similarity=-1.0).fingerprint_fields() == {}
    off = made(images, tmp_path / "off")
    assert off.selection == {}
    assert "dropped_low_similarity" not in off.metrics
    names = set(bytes_in(off.path))
    shards = {f"{folder}/{n}" for folder in ("features", "hashes") for n in images.names()}
    assert names == {"pairs.json", "pairs.html", *shards}
    on = made(images, tmp_path / "on", minimum_similarity=-0.99)
    assert ClipFeaturesConfig(minimum_similarity=-0.99).fingerprint_fields() == {
        "minimum_similarity": -0.99
    }
    assert set(bytes_in(on.path)) - names == {f"kept/{n}" for n in images.names("train")}
    for name in images.names():
        assert bytes_in(on.path)[f"features/{name}"] == bytes_in(off.path)[f"features/{name}"]


def test_pairs_that_are_dropped_are_counted_and_reported(images, tmp_path):
    report = json.loads((made(images, tmp_path / "off").path / "pairs.json").read_text())
    middle = report["splits"]["train"]["similarity"]["p50"]
    assert report["dropped"] == {}
    features = made(images, tmp_path / "on", minimum_similarity=middle)
    assert 0 < features.metrics["dropped_low_similarity"] < 12
    report = json.loads((features.path / "pairs.json").read_text())
    assert report["dropped"] == {"low_similarity": features.metrics["dropped_low_similarity"]}
    page = (features.path / "pairs.html").read_text()
    count = report["dropped"]["low_similarity"]
    assert f"Not trained on: low_similarity {count}" in page
