"""The stage text_targets on captions of a few rows."""

import numpy as np
import pytest
from small_store import TARGET, SmallStore, tiny_context

from data import schemas
from data.shards import AlignedShards, from_bytes, read_table, write_shard
from gill.backbones.testing import micro_models
from tasks.config.data import TextTargetsConfig
from tasks.stages.text_targets import run

CAPTIONS = ["a cat", "", "a caption longer than the encoder reads", "dog", "abcdef", "x"]


@pytest.fixture
def images(tmp_path):
    images = SmallStore(tmp_path, {"train": CAPTIONS}).images
    write_shard(images.folder / "train-00002.parquet", schemas.IMAGES.empty_table())
    return images


def made(images, out, device="cpu", **config):
    return run(tiny_context(TextTargetsConfig(**{"form": "fp16", **config}), out, device), images)


def test_targets_are_the_generators_own_in_the_order_of_the_captions(images, tmp_path):
    targets = made(images, tmp_path / "out", batch_size=2)
    assert targets.shape == TARGET
    rows = AlignedShards({images.folder: ["caption"], targets.folder: ["target"]}, "train").all()
    assert rows["caption"] == CAPTIONS
    expected = micro_models.image_generator().encode_text(CAPTIONS).numpy()
    found = rows["target"].reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=2e-3)
    assert (targets.metrics["tokens"], targets.metrics["dim"]) == TARGET
    assert targets.names() == images.names()


def test_tokens_are_counted_and_cut_captions_too(images, tmp_path):
    targets = made(images, tmp_path / "out", batch_size=4)
    assert targets.metrics["captions_cut"] == 1
    table = targets.read("train-00000.parquet")
    # BOS and a token for each letter and space: the encoder reads 8.
    assert table.column("num_tokens").to_pylist() == [6, 1, 1 + len(CAPTIONS[2])]


def test_eight_bits_are_within_a_step_of_sixteen(images, tmp_path):
    half = made(images, tmp_path / "half").read("train-00000.parquet")
    eight = made(images, tmp_path / "eight", form="int8").read("train-00000.parquet")
    assert {"target", "target_scale"} < set(eight.column_names)
    codes = from_bytes(eight, "target")
    assert codes.dtype == np.int8
    scales = np.array(eight.column("target_scale").to_pylist())
    values = codes.reshape(*scales.shape, -1) * scales[..., None]
    plain = from_bytes(half, "target").reshape(values.shape)
    assert (np.abs(values - plain) <= 0.6 * scales[..., None] + 2e-3).all()


def test_several_devices_write_what_one_writes(images, tmp_path):
    made(images, tmp_path / "one", batch_size=2)
    made(images, tmp_path / "two", device="cpu,cpu", batch_size=2)
    for name in images.names():
        one, two = (read_table(tmp_path / n / "targets" / name) for n in ("one", "two"))
        assert one.equals(two)
