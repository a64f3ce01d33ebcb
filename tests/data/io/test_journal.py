"""Lines of the journal: which files they prove, also when the journal itself is damaged."""

import errno
import os
import threading

import pytest

from data.io import journal
from data.io.atomic import WriteError, write_bytes
from data.io.journal import JOURNAL, Written, add, contents, keep_proven


@pytest.fixture
def partial(tmp_path):
    folder = tmp_path / "f00.partial"
    folder.mkdir()
    return folder


def test_a_file_below_unfinished_work_is_entered_and_others_are_not(partial, tmp_path):
    write_bytes(partial / "deep" / "a", b"abc")
    write_bytes(tmp_path / "b", b"abc")
    proven, wrong = keep_proven(partial)
    assert proven == {"deep/a": contents(partial / "deep" / "a")}
    assert wrong == {}
    assert not (tmp_path / JOURNAL).exists()


def test_what_was_written_again_is_proven_and_so_is_what_it_was(partial):
    write_bytes(partial / "a", b"one")
    write_bytes(partial / "a", b"two")
    assert keep_proven(partial)[1] == {}
    (partial / "a").write_bytes(b"one")
    assert keep_proven(partial)[1] == {}
    (partial / "a").write_bytes(b"six")
    assert keep_proven(partial) == ({}, {"a": "not what was written"})
    assert not (partial / "a").exists()


def test_a_file_without_a_line_counts_as_unfinished(partial):
    (partial / "a").write_bytes(b"abc")
    assert keep_proven(partial) == ({}, {"a": "nothing says that it was finished"})


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"[1, 2", b"{}", b"null", b'["a", {}, []]'])
def test_lines_that_cannot_be_read_prove_nothing_and_spoil_nothing(partial, junk):
    write_bytes(partial / "a", b"abc")
    (path,) = (partial / JOURNAL).iterdir()
    path.write_bytes(junk + path.read_bytes() + b"\n" + junk)
    assert keep_proven(partial)[1] == {}
    path.write_bytes(junk)
    assert set(keep_proven(partial)[1]) == {"a"}


def test_many_threads_write_whole_lines(partial):
    def write(number):
        for i in range(20):
            write_bytes(partial / f"{number}-{i}", f"{number} {i}".encode())

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proven, wrong = keep_proven(partial)
    assert (len(proven), wrong) == (80, {})


def test_a_line_that_finds_no_room_leaves_the_file_unproven(partial, monkeypatch):
    write_bytes(partial / "a", b"abc")
    real = os.write

    def full(descriptor, data):
        real(descriptor, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "write", full)
        with pytest.raises(WriteError, match=r"cannot write .*/b.*No space"):
            write_bytes(partial / "b", b"xyz")
    write_bytes(partial / "c", b"xyz")
    proven, wrong = keep_proven(partial)
    assert (set(proven), set(wrong)) == ({"a", "c"}, {"b"})


def test_entries_may_come_from_elsewhere(partial):
    (partial / "a").write_bytes(b"abc")
    add(partial, {"a": contents(partial / "a"), "b": Written(1, "00")})
    assert set(keep_proven(partial)[0]) == {"a"}
