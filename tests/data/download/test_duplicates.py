"""Duplicates over shards: told apart, kept or dropped, and the same decisions after a kill."""

import pyarrow.parquet as pq
import pytest
from hostile import encoded, random_image

from data.download.atomic_store import Store
from data.download.duplicates import COPY, DUPLICATES, find_duplicates, settle_duplicates
from data.download.image_codec import process
from data.download.image_shards import OpenShard, Row
from data.download.settings import ImageRules

NAMES = ["train-00000", "train-00001"]
# Key, address and image of each row: 0 and 3 have one address, 1 and 4 the same bytes of two, and 9
# is sent by three.
ROWS = {
    "train-00000": [("k0", "a", 0), ("k1", "b", 1), ("k2", "c", 9)],
    "train-00001": [("k3", "a", 0), ("k4", "d", 1), ("k5", "e", 9), ("k6", "f", 9), ("k7", "g", 2)],
}


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "out"))
    for name, rows in ROWS.items():
        shard = OpenShard(store, name)
        for key, origin, number in rows:
            raw = encoded(random_image(seed=number))
            image = process(raw, ImageRules(resize="crop", size=48))
            shard.add(Row(key, "caption", origin, "test"), raw, image, shard.keep(image.data))
        shard.fail(Row(f"{name}-lost", "caption", "z", "test"), "http_404")
        shard.finish()
    return store


def kinds(table):
    return {r["key"]: (r["first"], r["kind"]) for r in table.to_pylist()}


def keys(store, kind):
    found = []
    for name in NAMES:
        with store.open(f"{kind}/{name}.parquet") as handle:
            found += pq.read_table(handle).column("key").to_pylist()
    return found


def test_kinds_are_told_apart_and_the_first_is_none(store):
    assert kinds(find_duplicates(store, NAMES, 3)) == {
        "k3": ("k0", "url"), "k4": ("k1", "content"),
        "k2": ("k2", "placeholder"), "k5": ("k2", "placeholder"), "k6": ("k2", "placeholder"),
    }  # fmt: skip
    assert kinds(find_duplicates(store, NAMES, 4))["k6"] == ("k2", "content")
    assert "k2" not in kinds(find_duplicates(store, NAMES, 4))


def test_kept_duplicates_change_nothing(store):
    settle_duplicates(store, NAMES, 3, ())
    assert keys(store, "images") == [f"k{i}" for i in range(8)]


def test_dropped_ones_become_failures_and_one_of_each_stays(store):
    settle_duplicates(store, NAMES, 3, {"url", "content", "placeholder"})
    assert keys(store, "images") == ["k0", "k1", "k7"]
    assert sorted(keys(store, "failures")) == sorted(
        ["k2", "k3", "k4", "k5", "k6", "train-00000-lost", "train-00001-lost"]
    )
    stats = store.read_json("stats/train-00001.json")
    assert stats["good"] == 1
    assert stats["failures"] == {"duplicate": 2, "http_404": 1, "placeholder": 2}


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_a_kill_between_any_two_files_changes_no_decision(store, after, monkeypatch):
    """Finding again after some are dropped would find others: what was found first counts."""
    written, write = [], Store.write

    def stop(self, name, fill):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, fill)

    monkeypatch.setattr(Store, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        settle_duplicates(store, NAMES, 3, {"url", "content", "placeholder"})
    monkeypatch.setattr(Store, "write", write)
    settle_duplicates(store, NAMES, 3, {"url", "content", "placeholder"})
    assert keys(store, "images") == ["k0", "k1", "k7"]
    assert len(keys(store, "failures")) == 7
    assert store.read_json("stats/train-00000.json")["good"] == 2


@pytest.mark.parametrize("lost", [DUPLICATES, COPY])
def test_what_was_dropped_stays_known_when_a_record_is_lost(store, lost):
    before = settle_duplicates(store, NAMES, 3, {"url", "content", "placeholder"})
    assert len(find_duplicates(store, NAMES, 3)) == 0  # it cannot be found again
    store.remove(lost)
    again = settle_duplicates(store, NAMES, 3, {"url", "content", "placeholder"})
    assert again.to_pylist() == before.to_pylist()
    assert store.exists(lost)
