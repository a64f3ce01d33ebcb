"""Batches: shuffled by seed, shared by workers, resumed at the exact batch."""

import threading
from itertools import islice

import numpy as np
import pytest
from shard_tables import feature_table, kept_table, target_table

from data import loader, shards
from data.loader import ShuffledBatches
from data.shards import AlignedShards, ShardError, write_shard


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


def test_rows_are_mixed_anew_by_seed_and_epoch(tmp_path):
    """With a single shard only its rows can be in another order."""
    keys = [f"k{i}" for i in range(12)]
    write_shard(tmp_path / "features" / "train-00000.parquet", feature_table(keys))
    folders = (tmp_path / "features",)
    first, second = keys_of(order(folders), 3), keys_of(order(folders), 6)[3:]
    other = keys_of(order(folders, seed=4), 3)
    assert sorted(k for batch in first for k in batch) == sorted(keys)
    assert first != second
    assert first != other


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


def test_batches_of_eight_bit_targets_are_restored(tmp_path):
    for number in range(2):
        path = tmp_path / "targets" / f"train-{number:05d}.parquet"
        write_shard(path, target_table(np.full((6, 2, 4), number + 1.0)))
    batches = ShuffledBatches(AlignedShards({path.parent: ["target"]}, "train"), 4, seed=0)
    for batch in islice(batches.batches(0), 3):
        assert batch["target"].shape == (4, 8)
        assert np.isin(np.asarray(batch["target"], np.float32).round(2), [1, 2]).all()
        assert "target_scale" not in batch


def test_the_next_batch_is_made_while_the_present_one_is_used(folders, monkeypatch):
    made, second = [], threading.Event()

    def take(buffer, rows):
        made.append(threading.current_thread().name)
        if len(made) == 2:
            second.set()
        return shards.take(buffer, rows)

    monkeypatch.setattr(loader, "take", take)
    batches = order(folders).batches(0)
    next(batches)
    assert second.wait(10)  # nobody has asked for the second batch
    assert threading.current_thread().name not in made
    batches.close()


def selected(folders, kept, **settings):
    """Batches of the rows that are kept, by number."""
    folder = folders[0].parent / "kept"
    for name in shards.shard_names(folders[0]):
        keys = shards.read_table(folders[0] / name, ["key"]).column("key").to_pylist()
        write_shard(folder / name, kept_table(keys, [kept(int(key[1:])) for key in keys]))
    aligned = AlignedShards({folders[0]: ["feature"], folder: ["kept"]}, "train")
    return ShuffledBatches(aligned, 4, **{"seed": 3, "buffer_shards": 2, **settings})


def test_rows_that_are_left_out_are_in_no_batch(folders):
    stay = {i for i in range(47) if i % 2}
    batches = selected(folders, lambda i: i in stay)
    seen = [k for b in keys_of(batches, 3 * batches.batches_per_epoch()) for k in b]
    assert {int(key[1:]) for key in seen} == stay


@pytest.mark.parametrize("start", [1, 2, 5, 9])
def test_a_position_is_resumed_exactly_where_shards_have_no_rows_left(folders, start):
    batches = selected(folders, lambda i: not 10 <= i < 30, buffer_shards=1)
    assert batches.batches_per_epoch() == 2 + 2 + 1
    assert keys_of(batches, 10, start) == keys_of(batches, start + 10)[start:]


def test_a_split_of_which_nothing_is_left_is_an_error(folders):
    with pytest.raises(ShardError, match="no pairs of the split 'train' are left to train on"):
        next(selected(folders, lambda _: False).batches(0))
