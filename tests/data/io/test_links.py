"""A file gets a second name; where it cannot, a copy; where it is gone, nothing."""

import os

import pytest

from data.io.links import link_or_copy


@pytest.mark.parametrize("links", [True, False])
def test_both_names_have_the_bytes_and_share_them_if_they_can(tmp_path, monkeypatch, links):
    def refuses(*_):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuses)
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(b"weights")
    assert link_or_copy(source, target)
    assert target.read_bytes() == b"weights"
    assert source.samefile(target) == links


def test_a_file_that_is_gone_has_no_second_name(tmp_path):
    assert not link_or_copy(tmp_path / "nothing", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_had_the_name_before_is_replaced_and_not_written_over(tmp_path):
    source, target, other = (tmp_path / name for name in ("source", "target", "other"))
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    os.link(target, other)
    assert link_or_copy(source, target)
    assert (target.read_bytes(), other.read_bytes()) == (b"new", b"old")
