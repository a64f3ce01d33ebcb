"""From keys to rows: in the order asked, over any shards, with clear errors and little memory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_tables import feature_table, target_table

import data.lookup as lookup
from data import schemas
from data.lookup import MissingKeyError, ShardLookup
from data.shards import ShardError, write_shard


@pytest.fixture
def folder(folders):
    return folders[0]


def test_rows_come_in_the_order_asked_with_the_values_of_their_keys(folder):
    keys = ["k46", "k0", "k19", "k20", "k0", "k33"]
    found = ShardLookup.of(folder).rows(keys, ["feature"])
    assert found["key"] == keys
    first = [(int(key[1:]) % 10) * 3 for key in keys]
    assert found["feature"][:, 0].tolist() == first
    assert found["feature"].dtype == np.float16


def test_every_key_is_found_where_it_is(folder, monkeypatch):
    monkeypatch.setattr(lookup, "_BATCH", 3)
    found = ShardLookup.of(folder)
    assert len(found) == 47
    every = found.rows([f"k{i}" for i in range(47)], ["feature"])["feature"]
    expected = [feature_table(range(n))["feature"].to_pylist() for n in (10, 10, 10, 10, 7)]
    assert [row.tobytes() for row in every] == [row for part in expected for row in part]
    assert "k46" in found
    assert "k47" not in found
    assert found.value("k9", "key") == "k9"
    assert found.rows([]) == {"key": []}


def test_only_what_is_needed_is_read(folder, monkeypatch):
    """One column of one shard, in batches; the keys of all shards once."""
    monkeypatch.setattr(lookup, "_BATCH", 4)
    read, decoded = [], []
    whole, batched = pq.ParquetFile.read, pq.ParquetFile.iter_batches

    def iterate(self, *args):
        for batch in batched(self, *args):
            decoded.append((batch.num_rows, batch.schema.names))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "read", lambda s, **k: read.append(k) or whole(s, **k))
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iterate)
    found = ShardLookup.of(folder)
    found.rows(["k13"], ["feature"])
    found.rows(["k12"])
    assert read == [{"columns": ["key"]}] * 5
    assert decoded == [(4, ["key", "feature"])] * 1 + [(4, ["key"])] * 1


def test_splits_and_kinds(folder):
    write_shard(folder / "test-00000.parquet", feature_table(["t"]))
    assert "t" in ShardLookup.of(folder)
    assert "t" not in ShardLookup.of(folder, "train")
    assert len(ShardLookup.of(folder, "test", "features")) == 1
    with pytest.raises(ShardError, match="no shards of the split 'validation'"):
        ShardLookup.of(folder, "validation")
    with pytest.raises(schemas.SchemaError, match=r"train-00000\.parquet holds features/2"):
        ShardLookup.of(folder, "train", "images").rows(["k0"])


def test_missing_keys_are_all_named_once(folder):
    with pytest.raises(MissingKeyError, match=r"2 of 3 keys are in no shard.*'x'") as caught:
        ShardLookup.of(folder).rows(["k1", "x", "y", "x"])
    assert caught.value.keys == ["x", "y"]


def test_a_key_in_two_rows_is_refused_when_it_is_asked_for(folder):
    write_shard(folder / "train-00009.parquet", feature_table(["new", "k3"]))
    found = ShardLookup.of(folder)
    assert found.rows(["new"], ["feature"])["key"] == ["new"]
    with pytest.raises(ShardError, match=r"'k3'.*train-00000.*train-00009"):
        found.rows(["k3"])


def test_keys_with_the_same_hash_are_told_apart(folder, monkeypatch):
    monkeypatch.setattr(lookup, "hash", lambda key: 7, raising=False)
    found = ShardLookup.of(folder)
    assert found.rows(["k5", "k40"])["key"] == ["k5", "k40"]
    assert "other" not in found


def known(folder, keys):
    return ShardLookup(folder, [f"train-{n:05d}.parquet" for n in range(5)], keys)


def test_known_keys_spare_the_key_columns(folder, monkeypatch):
    monkeypatch.delattr(pq.ParquetFile, "read")
    found = known(folder, [f"k{i}" for i in range(47)])
    assert found.rows(["k46", "k11"], ["feature"])["feature"][:, 0].tolist() == [18, 3]
    with pytest.raises(MissingKeyError):
        found.rows(["k47"])


def test_known_keys_that_do_not_line_up_are_named(folder):
    keys = [f"k{i}" for i in range(47)]
    keys[14], keys[15] = keys[15], keys[14]
    with pytest.raises(ShardError, match=r"train-00001.*not aligned: row 4 has the key 'k14'"):
        known(folder, keys).rows(["k15"])
    with pytest.raises(ShardError, match="47 rows for 46 known keys"):
        known(folder, keys[:46]).rows(["k0"])


def test_eight_bits_come_back_as_numbers(tmp_path):
    path = tmp_path / "targets" / "train-00000.parquet"
    values = np.random.default_rng(0).normal(size=(6, 2, 64))
    write_shard(path, target_table(values))
    found = ShardLookup.of(path.parent, kind="text_targets").rows(["k4", "k1"], ["target"])
    assert set(found) == {"key", "target"}
    np.testing.assert_allclose(found["target"], values[[4, 1]].reshape(2, -1), atol=0.02)


@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "no column"])
def test_a_damaged_shard_is_named(folder, how):
    path, column = folder / "train-00002.parquet", "feature"
    found = ShardLookup.of(folder)
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[:-20])
    elif how == "flipped":
        data[data.index(feature_table(range(10))["feature"].combine_chunks().buffers()[1])] ^= 1
        path.write_bytes(data)
    elif how == "gone":
        path.unlink()
    else:
        column = "vector"
    with pytest.raises(ShardError, match=r"train-00002\.parquet"):
        found.rows(["k25"], [column])


def test_memory_is_that_of_the_rows_asked_for(tmp_path):
    """Rows of a shard of 16 MB in one row group: a page and a batch are held at once."""
    path = tmp_path / "wide" / "train-00000.parquet"
    write_shard(path, feature_table([f"k{i}" for i in range(4096)], dim=2048))
    found = ShardLookup.of(path.parent)
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    peak = 0
    for rows in found.batches([f"k{i}" for i in range(0, 4096, 512)], ["feature"]):
        peak = max(peak, pa.total_allocated_bytes() - before)
        assert len(rows["key"]) == 1
    assert peak < 8 << 20
