"""Room that is missing is said before work begins, with place, bytes and remedy."""

import pytest

from data.io.disk import free_bytes
from tasks.runner.room import DiskFullError, check_room, full_disk


def test_room_is_refused_by_the_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.runner.room.free_bytes", lambda _: 10**9)
    check_room(tmp_path, 10**9, "targets")
    with pytest.raises(DiskFullError, match=r"1.00 GB are free at .*new, .* 1.50 GB"):
        check_room(tmp_path / "new", 1_500_000_000, "targets")
    with pytest.raises(DiskFullError):
        check_room(tmp_path, 10**9 + 1, "targets")


def test_only_an_error_of_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    assert free_bytes(tmp_path) > 1 << 20
    assert full_disk(tmp_path, ValueError("a wrong value")) is None
    said = full_disk(tmp_path / "new", ValueError("database or disk is full\nand more"))
    assert "bytes are free): database or disk is full. Make room" in str(said)
    assert full_disk(tmp_path, said) is None
    assert full_disk(tmp_path, KeyboardInterrupt()) is None
    monkeypatch.setattr("tasks.runner.room.free_bytes", lambda _: 100)
    said = full_disk(tmp_path, ValueError("a wrong value"))
    assert "(100 bytes are free): a wrong value" in str(said)
