"""The one check of a finished artifact: what is read again when, and what is found."""

import os
import time

import pytest

from data import manifest as module
from data.io.journal import contents
from data.manifest import (
    MANIFEST,
    Manifest,
    checked_record,
    described,
    forget_checks,
    problems_of,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    """An artifact of two files."""
    made = tmp_path / "probe" / "f00"
    (made / "deep").mkdir(parents=True)
    for name, data in {"deep/a.bin": b"abc", "b.bin": b"xyz"}.items():
        (made / name).write_bytes(data)
    held = {name: contents(made / name) for name in ("deep/a.bin", "b.bin")}
    write_manifest(made, Manifest("probe", 1, "f00", {}, {}, {}, described(made, held)))
    return made


@pytest.fixture
def read(monkeypatch):
    """Names of the files whose contents are read."""
    names, real = [], module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda p: names.append(p.name) or real(p))
    return names


def settle(monkeypatch):
    """Let a minute have passed since the files were written, and let no artifact be small."""
    now = time.time()
    monkeypatch.setattr(module, "HASHED_UP_TO", 0)
    monkeypatch.setattr(module.time, "time", lambda: now + 60)


def test_each_kind_of_damage_is_found(folder):
    assert problems_of(folder) == {}
    (folder / "deep" / "a.bin").write_bytes(b"abd")
    assert problems_of(folder) == {"deep/a.bin": "other contents"}
    (folder / "deep" / "a.bin").write_bytes(b"abcd")
    (folder / "b.bin").unlink()
    (folder / "c.bin").write_bytes(b"")
    assert problems_of(folder) == {
        "deep/a.bin": "4 bytes, not 3",
        "b.bin": "missing",
        "c.bin": "not of this artifact",
    }


def test_every_byte_of_a_manifest_is_watched(folder):
    path = folder / MANIFEST
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 7):
        data = bytearray(whole)
        data[place] ^= 0x11
        path.write_bytes(data)
        assert problems_of(folder), data
    path.write_bytes(whole)
    assert problems_of(folder) == {}


def test_a_small_artifact_is_read_each_time(folder, read):
    for _ in range(2):
        problems_of(folder)
    assert sorted(read) == ["a.bin", "a.bin", "b.bin", "b.bin"]


def test_a_large_one_is_read_once_and_again_when_something_touched_it(folder, read, monkeypatch):
    settle(monkeypatch)
    assert problems_of(folder) == {}
    assert sorted(read) == ["a.bin", "b.bin"]
    assert problems_of(folder) == {}
    assert len(read) == 2
    stat = (folder / "b.bin").stat()
    (folder / "b.bin").write_bytes(b"xyy")
    os.utime(folder / "b.bin", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if nothing had been
    assert problems_of(folder) == {"b.bin": "other contents"}


def test_rot_that_leaves_no_trace_is_found_by_a_thorough_check(folder, read, monkeypatch):
    settle(monkeypatch)
    monkeypatch.setattr(
        module._Contents,
        "_stamp",
        lambda self, name: [1, (self.folder / name).stat().st_size, 1, 1],
    )
    assert problems_of(folder) == {}
    (folder / "b.bin").write_bytes(b"xyy")
    assert problems_of(folder) == {}
    assert problems_of(folder, thorough=True) == {"b.bin": "other contents"}
    forget_checks([folder])
    assert problems_of(folder) == {"b.bin": "other contents"}


def test_what_changed_just_now_is_not_remembered(folder, read, monkeypatch):
    monkeypatch.setattr(module, "HASHED_UP_TO", 0)
    problems_of(folder)
    problems_of(folder)
    assert len(read) == 4


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b'{"b.bin": 1}', b"\xff"])
def test_a_damaged_record_of_checks_means_to_read_again(folder, read, monkeypatch, data):
    settle(monkeypatch)
    problems_of(folder)
    checked_record(folder).write_bytes(data)
    assert problems_of(folder) == {}
    assert len(read) == 4
