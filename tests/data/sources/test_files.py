"""Lists of captions: odd lines are counted, identity is what the files hold."""

import gzip
import os

import pytest
from hostile import encoded

from data.sources.base import Pair, Rejected, SourceError, SourceSettings
from data.sources.captioned_files import CaptionedFiles
from data.sources.captioned_urls import CaptionedUrls
from data.sources.files import limited, relative_names, sliced
from data.sources.huggingface import HuggingFaceDataset
from data.sources.registry import SOURCES
from data.sources.webdataset import TarFiles


def urls(path, data, **settings):
    path.write_bytes(data)
    return list(CaptionedUrls({"train": str(path)}, **settings).pairs("train"))


def test_lines_are_kept_word_for_word(tmp_path):
    data = '"a"\tb\thttp://x.org/1\r\nline\u2028in one\t http://x.org/2 \n'.encode()
    first, second = urls(tmp_path / "l.tsv", data)
    assert first == Pair("train-000000000", '"a"\tb', "http://x.org/1", "cc3m", None)
    assert second.caption == "line\u2028in one"
    assert second.origin == "http://x.org/2"


def test_lines_that_cannot_be_read_are_counted(tmp_path):
    data = b"\xef\xbb\xbfa\tu\nno tab\n\xff\tu\n" + b"x" * (3 << 20) + b"\nb\tu"
    rows = urls(tmp_path / "l.tsv", data)
    assert rows[0].caption == "a", "a byte order mark is not text"
    assert [getattr(r, "reason", "") for r in rows] == [
        "",
        "no_tab",
        "not_utf8",
        "line_too_long",
        "",
    ]
    assert rows[-1].key == "train-000000004"


def test_a_list_that_is_cut_keeps_its_rows_and_counts_the_loss(tmp_path):
    lines = b"".join(b"cap %d\thttp://x.org/%d.jpg\n" % (i, i * 7919) for i in range(20_000))
    rows = urls(tmp_path / "l.tsv.gz", gzip.compress(lines)[:-40_000])
    assert len(rows) > 1000
    assert {type(r) for r in rows[:-1]} == {Pair}
    assert rows[-1].reason == "damaged_list"
    assert "l.tsv.gz" in rows[-1].place


def test_rows_are_cut_out_of_a_list(tmp_path):
    path = tmp_path / "l.tsv"
    path.write_bytes(b"".join(b"%d\tu\n" % i for i in range(10)))
    source = CaptionedUrls({"a": f"{path}[2:5]", "b": f"{path}[5:]"}, limit=4)
    assert [p.caption for p in source.pairs("a")] == ["2", "3", "4"]
    assert [p.caption for p in source.pairs("b")] == ["5", "6", "7", "8"]
    assert sliced("a.tsv[:3]") == ("a.tsv", (0, 3))
    assert limited(2, None, None) is None
    assert limited(2, 9, 3) == 5


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


@pytest.mark.parametrize("kind", ["csv", "jsonl", "jpg", "parquet"])
def test_a_folder_for_datasets_is_known_by_its_contents(tmp_path, kind):
    folder = tmp_path / "set"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / f"x.{kind}").write_bytes(b"first")
    source = HuggingFaceDataset(str(folder), {"caption": "a", "url": "b"}, {"train": "train"})
    before = source.identity()
    assert source.identity() == before
    (folder / "train" / f"x.{kind}").write_bytes(b"other")
    assert source.identity() != before


def test_identity_is_contents_and_not_places(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.tar").write_bytes(b"one")
    paths = [{"train": str(tmp_path / n / "*.tar")} for n in ("a", "b")]
    assert TarFiles(paths[0]).identity() == TarFiles(paths[1]).identity()
    (tmp_path / "b" / "0.tar").write_bytes(b"two")
    assert TarFiles(paths[0]).identity() != TarFiles(paths[1]).identity()
    one = TarFiles(paths[0]).identity()
    (tmp_path / "a" / "0.tar").rename(tmp_path / "a" / "1.tar")
    assert TarFiles(paths[0]).identity() != one, "keys are made of names"
    assert (
        CaptionedUrls({"train": f"{__file__}[:3]"}).identity()
        != CaptionedUrls({"train": f"{__file__}[:4]"}).identity()
    )


def test_names_are_what_tells_files_apart():
    assert relative_names(["/x/a/0.tar", "/x/b/0.tar"]) == ["a/0.tar", "b/0.tar"]
    assert relative_names(["/x/0.tar", "/x/1.tar"]) == ["0.tar", "1.tar"]
    assert relative_names(["0.tar"]) == ["0.tar"]


def test_every_source_is_made_from_its_settings():
    given = SourceSettings(
        paths={"train": "t"},
        limit=7,
        images="images",
        scenes=60,
        dataset="set",
        columns={"caption": "c", "url": "u"},
        revision="abc",
    )
    made = {name: make(given) for name, make in SOURCES.items()}
    assert {source.limit for source in made.values()} == {7}
    assert made["folder"].images == "images"
    assert made["huggingface"] == HuggingFaceDataset("set", given.columns, {"train": "t"}, "abc", 7)
    assert {n for n, source in made.items() if source.remote} == {"cc3m", "huggingface"}
    assert made["webdataset"].paths == {"train": "t"}
    assert made["scenes"].scenes == 60
