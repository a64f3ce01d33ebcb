"""A tar that is whole is read to its end; where it is damaged, the place is said."""

import gzip
import io
import tarfile

import pytest

from data.sources.tar import Archive


def archive(*names, size=700, record=None):
    """The bytes of a tar with members of some bytes each."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(name.encode()[:1] * size))
    return held.getvalue()


def read(data):
    """The members of an archive, and what was wrong with it."""
    found = []
    try:
        with Archive.read(io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                found.append((member.name, file.read() if file else None))
    except tarfile.ReadError as error:
        return found, str(error)
    return found, None


def test_a_whole_archive_has_nothing_wrong():
    found, wrong = read(archive("a", "b"))
    assert [name for name, _ in found] == ["a", "b"]
    assert found[1][1] == b"b" * 700
    assert wrong is None


def test_a_compressed_one_too():
    assert read(gzip.compress(archive("a", "b")))[1] is None


def test_archives_that_were_joined_are_read_through():
    found, wrong = read(archive("a") + archive("b", "c"))
    assert [name for name, _ in found] == ["a", "b", "c"]
    assert wrong is None


def test_a_file_that_was_cut_between_two_members_is_noticed():
    """Python's own reader takes this for the end."""
    whole = archive("a", "b")
    found, wrong = read(whole[: 512 + 1024])
    assert [name for name, _ in found] == ["a"]
    assert "it ends without its end blocks" in wrong


def test_a_broken_header_is_named_by_its_place():
    data = bytearray(archive("a", "b"))
    data[512 + 1024 + 3] ^= 0xFF  # the name of the second member: its checksum is off
    found, wrong = read(bytes(data))
    assert [name for name, _ in found] == ["a"]
    assert "no header before byte 2,048" in wrong


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_data_behind_a_hole_of_zeros_is_noticed(blocks):
    whole = archive("a", "b")
    end = 512 + 1024  # behind the first member
    found, wrong = read(whole[:end] + bytes(512 * blocks) + whole[end:])
    assert [name for name, _ in found] == ["a"]
    assert "data behind its end" in wrong


def test_an_archive_of_nothing_is_empty():
    assert read(archive()) == ([], None)
