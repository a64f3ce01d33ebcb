"""Files are read with bounds."""

import gzip
import os

import pytest
from hostile import encoded

from data.sources.opening import opened, read_below


def test_a_file_below_a_folder_is_read_or_has_a_reason(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded())
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_below(tmp_path, "a.jpg") == encoded()
    assert read_below(tmp_path, "pipe.jpg") == "missing_file", "it would wait for ever"
    assert read_below(tmp_path, "x" * 300) == "unreadable_file"
    assert read_below(tmp_path / "a", "../../a.jpg") == "outside_folder"
    monkeypatch.setattr("data.sources.opening.LARGEST_FILE", len(encoded()) - 1)
    assert read_below(tmp_path, "a.jpg") == "too_large"


def test_a_file_may_grow_a_hundred_times_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("data.sources.opening._INFLATED_FROM", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    (tmp_path / "b.gz").write_bytes(gzip.compress(os.urandom(1 << 20)))
    with opened(str(tmp_path / "b.gz")) as file:
        assert len(file.read()) == 1 << 20
    with opened(str(tmp_path / "a.gz")) as file, pytest.raises(OSError, match="grows to more than"):
        file.read()
