"""Files are whole or absent, whatever interrupts their writer."""

import errno
import json
import os
import threading

import pytest

from data.io.atomic import WriteError, atomic_file, sweep, write_bytes, write_json


def test_a_file_appears_whole_and_alone(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"x": [1]})
    assert json.loads(path.read_text()) == {"x": [1]}
    assert path.read_text().endswith("}\n")
    with atomic_file(path) as handle:
        handle.write(b"half")
        assert json.loads(path.read_text()) == {"x": [1]}
    assert path.read_bytes() == b"half"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_an_interrupted_writer_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def interrupted():
        with atomic_file(path) as handle:
            handle.write(b"new")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_with_path_and_bytes(tmp_path):
    def full():
        with atomic_file(tmp_path / "a") as handle:
            handle.write(b"x" * 100_000)
            handle.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        WriteError, match=r"a after 100,000 bytes: No space left.*free there. Make"
    ) as e:
        full()
    assert e.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file/a"):
        write_bytes(tmp_path / "file" / "a", b"")


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, type(tmp_path).replace

    def synced(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, to: done.append("name") or replace(self, to)
    )
    write_bytes(tmp_path / "a", b"x")
    assert done == ["file", "name", "folder"]


def test_writers_of_one_path_do_not_meet(tmp_path):
    path, start = tmp_path / "a", threading.Barrier(4)

    def write(byte):
        start.wait()
        for _ in range(5):
            write_bytes(path, byte * 50_000)

    threads = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_bytes())) == 1
    assert len(path.read_bytes()) == 50_000
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_swept(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.parquet.123-4.part").write_bytes(b"half")
    (tmp_path / "a" / "x.parquet").write_bytes(b"whole")
    sweep(tmp_path)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.parquet"]
