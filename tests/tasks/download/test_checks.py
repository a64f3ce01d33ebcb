"""A source without a pair to use is refused with the counts of why, before it is fetched."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.config.download import DownloadConfig
from tasks.download.checks import check_source


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "small.jpg")
    (tmp_path / "text.jpg").write_text("<html>")
    return tmp_path


def listed(folder, text, **more):
    (folder / "l.tsv").write_bytes(text.encode())
    given = {"source": "folder", "images": str(folder), "paths": {"train": str(folder / "l.tsv")}}
    check_source(DownloadConfig(**{**given, **more}), {"train": ["adapters"]})


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("a caption alone\n" * 3, r"first 3 rows \(no_tab: 3\)"),
        ("one\tnone.jpg\ntwo\t../x.jpg\n", r"missing_file: 1, outside_folder: 1"),
        ("a.jpg\tone caption in the wrong column\n", "missing_file: 1"),
        ("one\tsmall.jpg\n", "too_small: 1"),
        ("one\ttext.jpg\n", "not_image:html: 1"),
        ("", "has no rows"),
        ("caption\timage\n", "has no rows"),
    ],
)
def test_why_no_row_can_be_used(folder, text, reasons):
    with pytest.raises(ValueError, match=reasons):
        listed(folder, text)


def test_one_good_row_is_enough(folder):
    listed(folder, "one\tnone.jpg\n" * 50 + "two\ta.jpg\n")


def test_rows_beyond_the_list_are_none(folder):
    with pytest.raises(ValueError, match=r"l\.tsv\[5:\]\) has no rows"):
        listed(folder, "one\ta.jpg\n", paths={"train": f"{folder}/l.tsv[5:]"})


def test_addresses_are_looked_at_and_not_fetched(folder):
    web = {"source": "cc3m", "contact": "a@b.c", "images": ""}
    listed(folder, "one\thttp://nowhere.invalid/a.jpg\n", **web)
    with pytest.raises(ValueError, match=r"bad_url: 2\). The first: 'a caption'"):
        listed(folder, "http://nowhere.invalid/a.jpg\ta caption\n" * 2, **web)


def test_a_folder_in_place_of_a_list_is_named(folder):
    for source in ("folder", "webdataset"):
        with pytest.raises(ValueError, match="'train', is a folder; name files"):
            listed(folder, "", source=source, paths={"train": str(folder)})


def test_a_list_that_is_damaged_from_the_start_is_named(folder):
    (folder / "l.tsv.gz").write_bytes(gzip.compress(b"one\ta.jpg\n")[:12])
    with pytest.raises(ValueError, match="damaged_list: 1"):
        listed(folder, "", paths={"train": f"{folder}/l.tsv.gz"})


def test_columns_and_splits_of_a_data_set_must_be_there(folder):
    (folder / "set").mkdir()
    image = {"bytes": (folder / "a.jpg").read_bytes(), "path": "a.jpg"}
    table = pa.table({"text": ["one"], "picture": [image], "number": [1]})
    pq.write_table(table, folder / "set" / "train-0.parquet")
    given = {"source": "huggingface", "dataset": str(folder / "set"), "images": ""}

    def checked(columns, split="train"):
        listed(folder, "", **given, paths={"train": split}, columns=columns)

    checked({"caption": "text", "image": "picture"})
    for columns in ({"caption": "caption", "image": "picture"}, {"caption": "text", "image": "x"}):
        with pytest.raises(ValueError, match=r"has no column .*text"):
            checked(columns)
    with pytest.raises(ValueError, match="no_caption: 1"):
        checked({"caption": "number", "image": "picture"})
    with pytest.raises(ValueError, match=r"cannot be read: ValueError.*dev"):
        checked({"caption": "text", "image": "picture"}, split="dev")
