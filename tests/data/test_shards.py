"""Shards: whole or absent, aligned by key, shuffled by seed, resumed at the exact batch."""

from itertools import islice

import numpy as np
import pyarrow as pa
import pytest

from data import schemas
from data.quantization import block_of, quantise, restore
from data.shards import (
    AlignedShards,
    ShardError,
    ShuffledBatches,
    as_bytes,
    from_bytes,
    lists,
    read_table,
    shard_names,
    write_shard,
)


def feature_table(keys, dim=3, offset=0.0):
    values = np.arange(len(keys) * dim, dtype=np.float16).reshape(-1, dim) + np.float16(offset)
    return pa.table([pa.array(keys), as_bytes(values)], schema=schemas.features(dim))


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
    assert from_bytes(table, "feature").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert from_bytes(table, "feature").dtype == np.float16
    assert list(tmp_path.iterdir()) == [path]


def test_another_kind_or_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "features" / "train-00000.parquet"
    write_shard(path, feature_table(["a"]))
    with pytest.raises(schemas.SchemaError, match="features/2, not images/2"):
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


@pytest.mark.parametrize("workers", [2, 4])
def test_ranks_share_each_batch_without_overlap(folders, workers):
    alone = keys_of(order(folders), 12)
    parts = [keys_of(order(folders, rank=r, workers=workers), 12) for r in range(workers)]
    for batch, *shares in zip(alone, *parts, strict=True):
        assert [len(share) for share in shares] == [len(batch) // workers] * workers
        assert sorted(k for share in shares for k in share) == sorted(batch)


def test_a_run_goes_on_with_another_number_of_workers(folders):
    alone = keys_of(order(folders), 14)
    shares = [keys_of(order(folders, rank=r, workers=2), 7, start=7) for r in range(2)]
    for batch, left, right in zip(alone[7:], *shares, strict=True):
        assert sorted(left + right) == sorted(batch)


def test_a_batch_that_ranks_cannot_share_is_refused(folders):
    with pytest.raises(ValueError, match="multiple of the number of workers"):
        order(folders, rank=0, workers=3)


def test_misalignment_is_named_before_the_first_batch(folders):
    left, right = folders
    write_shard(right / "train-00003.parquet", feature_table([f"k{i}" for i in range(31, 41)]))
    shards = AlignedShards({left: ["feature"], right: ["feature"]}, "train")
    batches = ShuffledBatches(shards, 4, seed=0, buffer_shards=1)
    with pytest.raises(ShardError, match=r"right.*train-00003.*row 0.*run its stage"):
        next(batches.batches(0))


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    path = tmp_path / "targets" / "train-00000.parquet"
    write_shard(path, target_table(np.random.default_rng(0).normal(size=(4, 8, 64)), kind))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-00000\.parquet.*only this shard is made anew"):
        read_table(path)


def target_table(values, kind="int8"):
    count, tokens, dim = values.shape
    block = block_of(dim) if kind == "int8" else 0
    columns = [pa.array([f"k{i}" for i in range(count)]), pa.array([tokens] * count, pa.int32())]
    if block:
        target, scales = quantise(values, block)
        columns += [as_bytes(target), lists(scales, np.float16)]
    else:
        columns.append(as_bytes(values.astype(np.float16)))
    return pa.table(columns, schema=schemas.text_targets(tokens, dim, block))


def like_a_text_encoder(count=16, tokens=77, dim=768):
    """Normal values of which three widths are thirty times as large, as CLIP's are."""
    values = np.random.default_rng(0).normal(size=(count, tokens, dim))
    values[..., [5, 300, 700]] *= 30
    return values


def test_eight_bits_come_back_as_half_precision_within_half_a_step(tmp_path):
    values = like_a_text_encoder()
    path = tmp_path / "targets" / "train-00000.parquet"
    write_shard(path, target_table(values))
    found = AlignedShards({path.parent: ["target"]}, "train").all()
    assert set(found) == {"key", "target"}
    assert found["target"].dtype == np.float16
    blocks = values.reshape(16, -1, 64)
    bound = np.abs(blocks).max(-1, keepdims=True) / 127 * 0.51 + np.abs(blocks) * 1e-3
    assert (
        np.abs(found["target"].astype(np.float32).reshape(blocks.shape) - blocks) <= bound
    ).all()


def test_eight_bits_are_at_most_six_tenths_and_near_in_l_g(tmp_path):
    values = like_a_text_encoder()
    sizes, targets = {}, {}
    for kind in ("fp16", "int8"):
        path = tmp_path / kind / "train-00000.parquet"
        write_shard(path, target_table(values, kind))
        sizes[kind] = path.stat().st_size
        targets[kind] = AlignedShards({path.parent: ["target"]}, "train").all()["target"]
    assert sizes["int8"] <= 0.6 * sizes["fp16"]

    def l_g(predicted, target):
        difference = predicted - target.astype(np.float32).reshape(predicted.shape)
        return np.linalg.norm(difference, axis=-1).mean()

    guess = np.zeros_like(values)
    exact = l_g(guess, targets["fp16"])
    assert abs(l_g(guess, targets["int8"]) - exact) < 1e-3 * exact


def test_batches_of_eight_bit_targets_are_restored(tmp_path):
    for number in range(2):
        path = tmp_path / "targets" / f"train-{number:05d}.parquet"
        write_shard(path, target_table(np.full((6, 2, 4), number + 1.0)))
    batches = ShuffledBatches(AlignedShards({path.parent: ["target"]}, "train"), 4, seed=0)
    for batch in islice(batches.batches(0), 3):
        assert batch["target"].shape == (4, 8)
        assert np.isin(np.asarray(batch["target"], np.float32).round(2), [1, 2]).all()
        assert "target_scale" not in batch


def test_zeros_and_tiny_values_survive():
    values = np.zeros((2, 1, 64))
    values[1] = 1e-9
    found, scales = quantise(values, 64)
    assert (restore(found, scales) == 0).all()
