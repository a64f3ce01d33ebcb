"""Shards: whole or absent, aligned by key."""

import numpy as np
import pytest
from shard_tables import feature_table, kept_table, target_table

from data import schemas
from data.shards import AlignedShards, ShardError, from_bytes, read_table, shard_names, write_shard


def test_a_shard_comes_back_as_it_was(tmp_path):
    path = tmp_path / "train-00000.parquet"
    write_shard(path, feature_table(["a", "b"]))
    table = read_table(path, kind="features")
    assert table.column("key").to_pylist() == ["a", "b"]
    assert from_bytes(table, "feature").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert from_bytes(table, "feature").dtype == np.float16
    assert list(tmp_path.iterdir()) == [path]


def test_another_kind_or_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "features" / "train-00000.parquet"
    write_shard(path, feature_table(["a"]))
    with pytest.raises(schemas.SchemaError, match="features/2, not images/3"):
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


@pytest.mark.parametrize("count", [3, 10, 24, 47, 99])
def test_the_first_rows_are_those_in_order(folders, count):
    left, right = folders
    shards = AlignedShards({left: ["feature"], right: []}, "train")
    found, every = shards.first(count), shards.all()
    assert found["key"] == every["key"][:count]
    assert found["feature"].tolist() == every["feature"][:count].tolist()


def test_a_misaligned_shard_is_named_with_its_row(folders):
    left, right = folders
    keys = [f"k{i}" for i in range(10, 20)]
    keys[4] = "other"
    write_shard(right / "train-00001.parquet", feature_table(keys))
    shards = AlignedShards({left: ["feature"], right: []}, "train")
    with pytest.raises(ShardError, match=r"right.*train-00001.*row 4"):
        shards.read("train-00001.parquet")


def keep(folders, kept):
    """Say of the 47 rows which are kept; returns the folders with that beside them."""
    folder = folders[0].parent / "kept"
    for name in shard_names(folders[0]):
        keys = read_table(folders[0] / name, ["key"]).column("key").to_pylist()
        write_shard(folder / name, kept_table(keys, [kept(int(key[1:])) for key in keys]))
    return {folders[0]: ["feature"], folders[1]: [], folder: ["kept"]}


def test_rows_that_are_not_kept_are_left_out_of_all_that_is_read(folders):
    every = AlignedShards({folders[0]: ["feature"]}, "train").all()
    shards = AlignedShards(keep(folders, lambda i: i % 3 == 0 and not 20 <= i < 30), "train")
    stay = [i for i in range(47) if i % 3 == 0 and not 20 <= i < 30]
    assert shards.rows() == [4, 3, 0, 4, 2]
    rows = shards.all()
    assert set(rows) == {"key", "feature"}
    assert rows["key"] == [f"k{i}" for i in stay]
    assert rows["feature"].tolist() == every["feature"][stay].tolist()
    assert shards.first(5)["key"] == rows["key"][:5]
    shards.check()


def test_what_is_kept_must_be_of_the_same_rows(folders):
    named = keep(folders, lambda _: True)
    kept = folders[0].parent / "kept"
    write_shard(
        kept / "train-00001.parquet", kept_table([f"k{i}" for i in range(11, 21)], [True] * 10)
    )
    with pytest.raises(ShardError, match=r"kept.*train-00001.*row 0"):
        AlignedShards(named, "train").check()
    (kept / "train-00001.parquet").unlink()
    with pytest.raises(ShardError, match=r"train-00001"):
        AlignedShards(named, "train").rows()


def test_a_missing_shard_is_named_before_reading(folders):
    left, right = folders
    (right / "train-00002.parquet").unlink()
    with pytest.raises(ShardError, match="train-00002"):
        AlignedShards({left: [], right: []}, "train").names()
    with pytest.raises(ShardError, match="'test'"):
        AlignedShards({left: []}, "test").names()


def test_names_are_sorted_and_by_split(folders):
    write_shard(folders[0] / "test-00000.parquet", feature_table(["t"]))
    assert shard_names(folders[0], "test") == ["test-00000.parquet"]
    assert len(shard_names(folders[0])) == 6


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    path = tmp_path / "targets" / "train-00000.parquet"
    write_shard(path, target_table(np.random.default_rng(0).normal(size=(4, 8, 64)), kind))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-00000\.parquet.*makes what is damaged anew"):
        read_table(path)
