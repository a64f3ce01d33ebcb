"""Shards: whole or absent, aligned by key, shuffled by seed, resumed at the exact batch."""

from itertools import islice

import numpy as np
import pyarrow as pa
import pytest

from data import schemas
from data.shards import (
    AlignedShards,
    ShardError,
    ShuffledBatches,
    lists,
    matrix,
    read_table,
    shard_names,
    write_shard,
)


def feature_table(keys, dim=3, offset=0.0):
    values = np.arange(len(keys) * dim, dtype=np.float16).reshape(-1, dim) + np.float16(offset)
    return pa.table([pa.array(keys), lists(values, np.float16)], schema=schemas.features(dim))


@pytest.fixture
def folders(tmp_path):
    """Two aligned folders of 5 shards with 10, 10, 10, 10 and 7 rows."""
    left, right = tmp_path / "left" / "features", tmp_path / "right" / "features"
    count = 0
    for number, size in enumerate([10, 10, 10, 10, 7]):
        keys = [f"k{count + i}" for i in range(size)]
        for folder in (left, right):
            write_shard(folder / f"train-{number:05d}.parquet", feature_table(keys))
        count += size
    return left, right


def test_a_shard_comes_back_as_it_was(tmp_path):
    path = tmp_path / "train-00000.parquet"
    write_shard(path, feature_table(["a", "b"]))
    table = read_table(path, kind="features")
    assert table.column("key").to_pylist() == ["a", "b"]
    assert matrix(table, "feature").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert matrix(table, "feature").dtype == np.float16
    assert list(tmp_path.iterdir()) == [path]


def test_another_kind_or_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "features" / "train-00000.parquet"
    write_shard(path, feature_table(["a"]))
    with pytest.raises(schemas.SchemaError, match="features/1, not images/2"):
        read_table(path, kind="images")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ShardError, match=r"train-00000\.parquet"):
        read_table(path)
    with pytest.raises(ShardError, match=r"train-00009\.parquet"):
        read_table(path.with_name("train-00009.parquet"))


def test_folders_join_by_row(folders):
    left, right = folders
    rows = AlignedShards({left: ["feature"], right: []}, "train").all()
    assert rows["key"] == [f"k{i}" for i in range(47)]
    assert rows["feature"].shape == (47, 3)


def test_a_misaligned_shard_is_named_with_its_row(folders):
    left, right = folders
    keys = [f"k{i}" for i in range(10, 20)]
    keys[4] = "other"
    write_shard(right / "train-00001.parquet", feature_table(keys))
    shards = AlignedShards({left: ["feature"], right: []}, "train")
    with pytest.raises(ShardError, match=r"right.*train-00001.*row 4"):
        shards.read("train-00001.parquet")


def test_a_missing_shard_is_named_before_reading(folders):
    left, right = folders
    (right / "train-00002.parquet").unlink()
    with pytest.raises(ShardError, match="train-00002"):
        AlignedShards({left: [], right: []}, "train").names()
    with pytest.raises(ShardError, match="'test'"):
        AlignedShards({left: []}, "test").names()


def order(folders, **settings):
    shards = AlignedShards({folders[0]: ["feature"]}, "train")
    return ShuffledBatches(shards, 4, **{"seed": 3, "buffer_shards": 2, **settings})


def keys_of(batches, count, start=0):
    return [batch["key"] for batch in islice(batches.batches(start), count)]


def test_an_epoch_shows_each_row_at_most_once(folders):
    batches = order(folders)
    per_epoch = batches.batches_per_epoch()
    seen = [k for b in keys_of(batches, per_epoch) for k in b]
    assert len(seen) == len(set(seen)) == per_epoch * 4
    assert len(seen) >= 47 - 3 * 3


def test_order_depends_on_the_seed_alone(folders):
    assert keys_of(order(folders), 30) == keys_of(order(folders), 30)
    assert keys_of(order(folders), 30) != keys_of(order(folders, seed=4), 30)


@pytest.mark.parametrize("start", [1, 4, 5, 11, 12, 25])
def test_a_position_is_resumed_exactly(folders, start):
    batches = order(folders, length=lambda rows: [int(k[1:]) for k in rows["key"]])
    assert keys_of(batches, 10, start) == keys_of(batches, start + 10)[start:]


def test_rows_of_a_batch_have_like_lengths(folders):
    def length(rows):
        return [int(k[1:]) for k in rows["key"]]

    shards = AlignedShards({folders[0]: []}, "train")
    plain = ShuffledBatches(shards, 4, seed=0, buffer_shards=5)
    sorted_ = ShuffledBatches(shards, 4, seed=0, buffer_shards=5, length=length)

    def spread(batches):
        return np.mean([np.ptp(length(b)) for b in islice(batches.batches(0), 11)])

    assert spread(sorted_) < spread(plain) / 3


def test_names_are_sorted_and_by_split(folders):
    write_shard(folders[0] / "test-00000.parquet", feature_table(["t"]))
    assert shard_names(folders[0], "test") == ["test-00000.parquet"]
    assert len(shard_names(folders[0])) == 6
