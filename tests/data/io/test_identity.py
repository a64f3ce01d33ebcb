"""Identity is contents: nothing that changes is missed, nothing unchanged is read twice."""

import hashlib
import json
import os
import time

import pytest

from data.io import identity
from data.io.identity import content_digest, file_digest, folder_digest, remember_in


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """A memory of the test's own, in which files of now count as settled."""
    monkeypatch.setattr(identity, "_MEMORY", identity._Memory())
    monkeypatch.setattr(identity, "_SETTLED", -60)


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read, in order."""
    read, sha256_of = [], identity.sha256_of
    monkeypatch.setattr(identity, "sha256_of", lambda p: read.append(p.name) or sha256_of(p))
    return read


def test_a_file_is_its_bytes(tmp_path, hashed):
    (tmp_path / "a").write_bytes(b"x")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"x").hexdigest()
    assert content_digest(tmp_path / "a") == file_digest(tmp_path / "a")
    assert hashed == ["a"]
    with pytest.raises(OSError, match="none"):
        content_digest(tmp_path / "none")


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before, stat = file_digest(path), path.stat()
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert path.stat().st_ino == stat.st_ino
    assert file_digest(path) != before


def test_what_changed_just_now_is_not_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(identity, "_SETTLED", 2.0)
    (tmp_path / "a").write_bytes(b"x")
    file_digest(tmp_path / "a")
    file_digest(tmp_path / "a")
    assert hashed == ["a", "a"]
    monkeypatch.setattr(time, "time", lambda: (tmp_path / "a").stat().st_ctime + 3)
    file_digest(tmp_path / "a")
    file_digest(tmp_path / "a")
    assert hashed == ["a", "a", "a"]


def test_a_folder_is_its_names_and_bytes(tmp_path, hashed):
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "a").write_bytes(b"x")
        (tmp_path / name / "deep" / "b").write_bytes(b"y")
    one = folder_digest(tmp_path / "one")
    assert one == folder_digest(tmp_path / "two") == content_digest(tmp_path / "one")
    assert sorted(hashed) == ["a", "a", "b", "b"]
    (tmp_path / "two" / "deep" / "b").write_bytes(b"z")
    assert folder_digest(tmp_path / "two") != one
    (tmp_path / "two" / "deep" / "b").write_bytes(b"y")
    (tmp_path / "two" / "deep" / "b").rename(tmp_path / "two" / "b")
    assert folder_digest(tmp_path / "two") != one


def test_digests_of_folders_and_large_files_outlive_the_process(tmp_path, hashed, monkeypatch):
    record, large = tmp_path / "digests.json", tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    (tmp_path / "small").write_bytes(b"x")
    remember_in(record)
    digest = file_digest(large)
    file_digest(tmp_path / "small")
    assert list(json.loads(record.read_text()).values()) == [digest]
    monkeypatch.setattr(identity, "_MEMORY", identity._Memory())
    remember_in(record)
    assert file_digest(large) == digest
    file_digest(tmp_path / "small")
    assert hashed == ["large", "small", "small"]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"a": 1}'])
def test_a_record_that_cannot_be_read_begins_anew(tmp_path, content):
    (tmp_path / "digests.json").write_bytes(content)
    remember_in(tmp_path / "digests.json")
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    digest = file_digest(tmp_path / "large")
    assert list(json.loads((tmp_path / "digests.json").read_text()).values()) == [digest]
