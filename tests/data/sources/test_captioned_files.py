"""A list beside a folder of images: odd names are counted rows."""

import os

import pytest
from hostile import encoded

from data.sources.base import Rejected, SourceError
from data.sources.captioned_files import CaptionedFiles
from data.sources.captioned_urls import CaptionedUrls


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.jpg").write_bytes(encoded())
    os.symlink(images / "loop.jpg", images / "loop.jpg")
    (tmp_path / "2.jpg").write_bytes(encoded())
    os.symlink(tmp_path / "2.jpg", images / "2.jpg")
    return images


def captioned(folder, names):
    path = folder.parent / "list.tsv"
    path.write_bytes(b"caption\timage\n" + b"".join(b"a\t%s\n" % n for n in names))
    return CaptionedFiles({"train": str(path)}, images=str(folder))


@pytest.mark.parametrize(
    ("name", "reason"),
    [(b"x\0.jpg", "unreadable_file"), (b"x" * 300, "unreadable_file"), (b"2.jpg", "outside_folder"),
     (b"../2.jpg", "outside_folder"), (b"none.jpg", "missing_file"), (b".", "missing_file")],
)  # fmt: skip
def test_odd_names_are_counted_rows(folder, name, reason):
    odd, good = captioned(folder, [name, b"1.jpg"]).pairs("train")
    assert (type(odd), odd.reason) == (Rejected, reason)
    assert good.image == encoded()


def test_a_loop_of_links_is_a_counted_row(folder):
    odd, good = captioned(folder, [b"loop.jpg", b"1.jpg"]).pairs("train")
    assert odd.reason in {"unreadable_file", "missing_file"}
    assert good.origin == "1.jpg"


def test_a_giant_file_is_not_read(folder):
    with (folder / "giant.jpg").open("wb") as file:
        file.truncate(3 << 30)
    assert next(captioned(folder, [b"giant.jpg"]).pairs("train")).reason == "too_large"


def test_a_folder_that_is_none_is_refused(tmp_path):
    for images in ("", str(tmp_path / "none")):
        with pytest.raises(SourceError, match="is no folder"):
            next(CaptionedFiles({"train": __file__}, images=images).pairs("train"))
    with pytest.raises(SourceError, match="has no file"):
        next(CaptionedUrls({"train": str(tmp_path / "*.tsv")}).pairs("train"))


def test_an_image_that_changed_changes_the_identity(folder):
    source = captioned(folder, [b"1.jpg"])
    before, stat = source.identity(), (folder / "1.jpg").stat()
    data = bytearray(encoded())
    data[-9] ^= 1
    (folder / "1.jpg").write_bytes(data)
    os.utime(folder / "1.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source.identity() != before
    (folder / "1.jpg").write_bytes(encoded())
    assert source.identity() == before
