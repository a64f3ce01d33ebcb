"""Image shards: rows in any order come out in one, later passes join, nothing is left behind."""

import hashlib

import pyarrow.parquet as pq
import pytest
from hostile import encoded, random_image

from data.download.atomic_store import Store
from data.download.image_codec import process
from data.download.image_shards import OpenShard, Row, failed_rows, shard_name
from data.download.settings import ImageRules

RULES = ImageRules(resize="crop", size=48)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def row(number, reason=""):
    return Row(f"k{number:03d}", f"caption {number}", f"http://x.org/{number}", "test", reason)


def add(shard, number):
    raw = encoded(random_image(seed=number))
    image = process(raw, RULES)
    shard.add(row(number), raw, image, shard.keep(image.data))
    return raw, image


def read(store, kind, name="train-00000"):
    with store.open(f"{kind}/{name}.parquet") as handle:
        return pq.read_table(handle).to_pylist()


def test_rows_come_out_in_the_order_of_their_keys(store):
    shard = OpenShard(store, "train-00000")
    made = {number: add(shard, number) for number in (3, 0, 2)}
    shard.fail(row(4), "timeout", "15 s")
    shard.fail(row(1), "http_404", "gone", 12.5)
    stats = shard.finish()
    images = read(store, "images")
    assert [r["key"] for r in images] == ["k000", "k002", "k003"]
    for found, number in zip(images, (0, 2, 3), strict=True):
        raw, image = made[number]
        assert found["image"] == image.data
        assert found["sha256"] == hashlib.sha256(raw).hexdigest()
        assert (found["width"], found["height"]) == (48, 48)
        assert (found["original_width"], found["original_height"]) == (96, 64)
        assert found["origin"] == f"http://x.org/{number}"
    assert [(f["key"], f["reason"], f["retry_at"]) for f in read(store, "failures")] == [
        ("k001", "http_404", 12.5), ("k004", "timeout", 0.0)
    ]  # fmt: skip
    assert (stats["rows"], stats["good"]) == (5, 3)
    assert stats["failures"] == {"http_404": 1, "timeout": 1}
    assert stats["bytes_fetched"] == sum(len(raw) for raw, _ in made.values())
    assert store.read_json("stats/train-00000.json") == stats


def test_rows_that_come_in_order_stay_in_it(store):
    shard = OpenShard(store, "train-00000", in_order=True)
    for number in (2, 0, 1):
        add(shard, number)
    shard.finish()
    assert [r["key"] for r in read(store, "images")] == ["k002", "k000", "k001"]


def test_a_later_pass_joins_what_was_there(store):
    first = OpenShard(store, "train-00000")
    raw, _ = add(first, 1)
    for number in (0, 2):
        first.fail(row(number), "timeout", retry_at=7.0)
    first.finish()
    failed = failed_rows(store, "train-00000")
    assert failed == [(row(0), "timeout", "", 7.0), (row(2), "timeout", "", 7.0)]
    second = OpenShard(store, "train-00000", passes=1)
    add(second, 0)
    second.fail(row(2), "http_404")
    stats = second.finish()
    assert [r["key"] for r in read(store, "images")] == ["k000", "k001"]
    assert (stats["passes"], stats["rows"], stats["good"]) == (1, 3, 2)
    assert [f[0] for f in failed_rows(store, "train-00000")] == [row(2)]
    assert read(store, "images")[1]["sha256"] == hashlib.sha256(raw).hexdigest()


def test_a_failure_that_is_an_image_too_is_not_tried_again(store):
    """As after a kill between the two files of a later pass."""
    shard = OpenShard(store, "train-00000")
    add(shard, 0)
    shard.fail(row(0), "timeout")
    shard.fail(row(1), "timeout")
    shard.finish()
    assert [f[0].key for f in failed_rows(store, "train-00000")] == ["k001"]


def test_row_groups_are_small(store):
    shard = OpenShard(store, "train-00000")
    raw = encoded(random_image())
    image = process(raw, RULES)
    for number in range(600):
        shard.add(row(number), raw, image, shard.keep(image.data))
    shard.finish()
    with store.open("images/train-00000.parquet") as handle:
        file = pq.ParquetFile(handle)
        groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    assert groups == [256, 256, 88]


def test_a_shard_that_is_let_go_leaves_nothing(store, tmp_path):
    shard = OpenShard(store, "train-00000")
    add(shard, 0)
    shard.close()
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_names_sort_as_numbers_do():
    assert shard_name("train", 3) == "train-00003"
