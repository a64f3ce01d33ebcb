"""How far a stage is lies beside its work, not in it, and is gone when the work is."""

import pytest

from data.io.atomic import WriteError
from tasks.tracking import progress
from tasks.tracking.progress import forget_progress, read_progress, write_progress


def test_what_was_said_is_read_until_it_is_forgotten(tmp_path):
    work = tmp_path / "f00.partial"
    work.mkdir()
    assert read_progress(work) is None
    write_progress(work, {"done": 1, "total": 2}, {"loss": 0.5})
    write_progress(work, {"done": 2, "total": 2}, {"loss": 0.25})
    assert read_progress(work) == {"done": 2, "total": 2, "metrics": {"loss": 0.25}}
    assert list(work.iterdir()) == []
    forget_progress(work)
    forget_progress(work)
    assert read_progress(work) is None


@pytest.mark.parametrize("text", ["", "[1]", "\udcff"])
def test_what_cannot_be_read_says_nothing(tmp_path, text):
    (tmp_path / "f00.progress.json").write_bytes(text.encode(errors="surrogateescape"))
    assert read_progress(tmp_path / "f00.partial") is None


def test_a_full_disk_does_not_end_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise WriteError("no room")

    monkeypatch.setattr(progress, "write_json", full)
    write_progress(tmp_path / "f00.partial", {}, {})
