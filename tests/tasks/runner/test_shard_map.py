"""Work by shards and in chunks: kept once written, shared out over functions, read ahead."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from data.shards import ShardError, read_table, write_shard
from tasks.runner import shard_map
from tasks.runner.room import DiskFullError
from tasks.runner.shard_map import ChunkedWork, ahead, check_room_for_rows, map_shards
from tasks.tracking.stage_log import ConsoleLog

ROWS = {"train-00000.parquet": 4, "train-00001.parquet": 0, "test-00000.parquet": 3}


@pytest.fixture
def source(tmp_path):
    """Three shards of numbers, one of them empty."""
    folder, first = tmp_path / "source", 0
    for name, count in ROWS.items():
        write_shard(
            folder / name, pa.table({"x": pa.array(range(first, first + count), pa.int64())})
        )
        first += count
    return folder


def doubled(path):
    table = read_table(path)
    return pa.table({"x": [2 * x for x in table.column("x").to_pylist()]}, table.schema)


def mapped(source, target, convert=doubled, shards=()):
    return map_shards(ConsoleLog(), source, target, "numbers", convert, shards)


def found(target):
    return {p.name: read_table(p).column("x").to_pylist() for p in sorted(target.iterdir())}


def test_rows_that_no_disk_holds_are_refused_before_any_is_made(source, tmp_path):
    target = tmp_path / "target"
    with pytest.raises(DiskFullError, match=r"GB are free at .* 7 numbers of .* bytes each"):
        check_room_for_rows(source, target, 1 << 60, "numbers")
    with pytest.raises(DiskFullError, match="3 numbers"):
        check_room_for_rows(source, target, 1 << 60, "numbers", without=("train",))
    check_room_for_rows(source, target, 8, "numbers")
    mapped(source, target)
    check_room_for_rows(source, target, 1 << 60, "numbers")  # which are there


def test_each_shard_is_converted_under_its_name(source, tmp_path):
    metrics = mapped(source, tmp_path / "target")
    assert found(tmp_path / "target") == {
        "test-00000.parquet": [8, 10, 12], "train-00000.parquet": [0, 2, 4, 6],
        "train-00001.parquet": [],
    }  # fmt: skip
    assert (metrics["rows"], metrics["shards_resumed"]) == (7, 0)
    size = sum(p.stat().st_size for p in (tmp_path / "target").iterdir())
    assert metrics["bytes"] == size


def test_a_killed_work_goes_on_at_the_next_shard(source, tmp_path):
    def dies(path):
        if path.name == "train-00000.parquet":
            raise RuntimeError("killed")
        return doubled(path)

    with pytest.raises(RuntimeError, match="killed"):
        mapped(source, tmp_path / "target", dies)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "target").iterdir()}
    assert "train-00000.parquet" not in kept
    asked = []
    metrics = mapped(source, tmp_path / "target", lambda p: asked.append(p.name) or doubled(p))
    assert set(asked) == set(ROWS) - set(kept)
    assert metrics["shards_resumed"] == len(kept)
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "target").iterdir()}
    assert {name: stamps[name] for name in kept} == kept


def test_only_the_shards_that_are_asked_for(source, tmp_path):
    metrics = mapped(source, tmp_path / "target", shards=("test-00000.parquet",))
    assert set(found(tmp_path / "target")) == {"test-00000.parquet"}
    assert metrics["rows"] == 3


def test_several_functions_work_at_the_same_time(source, tmp_path):
    """Each waits for the other: one alone would never end."""
    together, used = threading.Barrier(2, timeout=30), []

    def convert(name):
        def run(path):
            if path.name != "train-00001.parquet":
                together.wait()
            used.append(name)
            return doubled(path)

        return run

    names = ("train-00000.parquet", "test-00000.parquet")
    mapped(source, tmp_path / "two", [convert("a"), convert("b")], names)
    assert sorted(used) == ["a", "b"]
    mapped(source, tmp_path / "one")
    both = found(tmp_path / "two")
    assert both == {name: found(tmp_path / "one")[name] for name in both}


def test_an_error_of_one_of_several_ends_the_work(source, tmp_path):
    def fails(path):
        raise ShardError(f"cannot read {path.name}")

    with pytest.raises(ShardError, match=r"cannot read t.*\.parquet"):
        mapped(source, tmp_path / "target", [fails, fails])
    assert not (tmp_path / "target").exists()


def test_progress_counts_what_was_there_as_resumed(source, tmp_path):
    said = []

    mapped(source, tmp_path / "target", shards=("train-00000.parquet",))
    log = ConsoleLog()
    log.progress = lambda done, total, unit, resumed=0: said.append((done, total, unit, resumed))
    map_shards(log, source, tmp_path / "target", "numbers", doubled)
    assert said[-1] == (7, 7, "numbers", 4)


@pytest.fixture
def chunks(tmp_path, monkeypatch):
    """Work in chunks of three; returns the numbers and which rows were made."""
    monkeypatch.setattr(shard_map, "CHUNK", 3)

    def work(name="a", count=7, fail_at=None):
        made = []

        def make(rows):
            if rows.start == fail_at:
                raise RuntimeError("killed")
            made.append((rows.start, rows.stop))
            return pa.table({"x": list(range(rows.start, rows.stop))})

        whole = ChunkedWork(ConsoleLog(), tmp_path / "chunks", "prompts", count)
        return whole(name, count, make).column("x").to_pylist(), made, whole

    return work


def test_chunks_are_joined_in_order_and_the_last_is_short(chunks):
    numbers, made, whole = chunks()
    assert numbers == list(range(7))
    assert made == [(0, 3), (3, 6), (6, 7)]
    assert (whole.done, whole.resumed) == (7, 0)


def test_chunks_that_are_there_are_not_made_again(chunks):
    with pytest.raises(RuntimeError, match="killed"):
        chunks(fail_at=3)
    numbers, made, whole = chunks()
    assert numbers == list(range(7))
    assert made == [(3, 6), (6, 7)]
    assert whole.resumed == 3
    assert chunks("b")[1] == [(0, 3), (3, 6), (6, 7)]  # another name is other work


def test_the_next_chunk_is_loaded_while_one_is_used():
    begun, go = [], threading.Event()

    def load(item):
        begun.append(item)
        if item == "slow":
            assert go.wait(30)
        return item.upper()

    with ThreadPoolExecutor(4) as pool:
        loaded = ahead(pool, load, [["a", "b"], ["slow"], ["c"]])
        assert next(loaded) == ["A", "B"]
        assert set(begun) >= {"a", "b"}  # and "slow" is asked for, which holds nobody up
        go.set()
        assert list(loaded) == [["SLOW"], ["C"]]
    assert list(ahead(None, load, [])) == []
