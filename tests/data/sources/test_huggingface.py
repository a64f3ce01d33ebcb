"""Data sets through `datasets`: one bad file hides no other, and contents are the identity."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch  # noqa: F401 `datasets` imports it, and it starts a process
from hostile import encoded

from data.sources.base import Pair, SourceError
from data.sources.huggingface import HuggingFaceDataset

ADDRESSES = {"caption": "caption", "url": "url"}
IMAGES = {"caption": "caption", "image": "image"}


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


def read(folder, columns=ADDRESSES, **settings):
    source = HuggingFaceDataset(str(folder), columns, {"train": "train"}, **settings)
    return list(source.pairs("train"))


def outcomes(rows):
    return [row.caption if isinstance(row, Pair) else row.reason for row in rows]


def images(folder, *rows, name="a.parquet"):
    made = [{"caption": c, "image": {"bytes": b, "path": p}} for c, b, p in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("caption", pa.string()), ("image", kind)])
    pq.write_table(pa.Table.from_pylist(made, schema=schema), folder / name)


def test_changed_rows_of_a_folder_are_another_source(tmp_path):
    """Not only its digest: the rows themselves come from the files as they are now."""
    source = HuggingFaceDataset(str(tmp_path), ADDRESSES, {"train": "train"})
    found = []
    for caption in ("first", "SECOND"):
        (tmp_path / "train.csv").write_text(f"caption,url\n{caption},http://x.org/1.jpg\n")
        found.append((source.identity(), outcomes(source.pairs("train"))))
    assert [rows for _, rows in found] == [["first"], ["SECOND"]]
    assert found[0][0] != found[1][0]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("csv", b"caption,url\nx,y,z,w\na,b\n1,2,3,4,5\n"),
        ("jsonl", b'{"caption": "a", "url": "u"}\n{"caption": "b", "ur'),
        ("jsonl", b'{"caption": "lone \\ud800", "url": "u"}\n'),
        ("jsonl", b'{"caption": "\xff", "url": "u"}\n'),
        ("jsonl", b""),
        ("csv", b""),
    ],
)
def test_a_damaged_list_of_a_folder_hides_no_other(tmp_path, kind, bad):
    good = b'{"caption": "fine", "url": "u"}\n' if kind == "jsonl" else b"caption,url\nfine,u\n"
    (tmp_path / f"a.{kind}").write_bytes(bad)
    (tmp_path / f"b.{kind}").write_bytes(good)
    rows = read(tmp_path)
    assert outcomes(rows)[-1] == "fine"
    assert set(outcomes(rows)) <= {"fine", "damaged_list"}
    assert all(f"a.{kind}" in row.place for row in rows if row not in rows[-1:])
    assert len({row.key for row in rows}) == len(rows)


def test_a_damaged_parquet_file_is_named_and_the_next_is_read(tmp_path):
    for name in ("a", "b", "c"):
        images(tmp_path, (f"{name} 1", encoded(), None), name=f"{name}.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    rows = read(tmp_path, IMAGES)
    assert outcomes(rows) == ["a 1", "damaged_list", "c 1"]
    assert "b.parquet" in rows[1].place


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    images(
        tmp_path,
        ("fine", encoded(), None),
        (None, encoded(), None),
        ("nothing", b"", None),
        ("no file", None, "none.jpg"),
        ("outside", None, "/etc/passwd"),
        ("nul", None, "a\0b.jpg"),
    )
    reasons = ["fine", "no_caption", "no_image", "missing_file", "outside_folder"]
    assert outcomes(read(tmp_path, IMAGES)) == [*reasons, "unreadable_file"]


def test_a_folder_of_image_files(tmp_path):
    (tmp_path / "1.jpg").write_bytes(encoded())
    (tmp_path / "2.jpg").write_bytes(b"junk")
    (tmp_path / "metadata.csv").write_text("file_name,caption\n1.jpg,one\n2.jpg,two\n")
    one, two = read(tmp_path, IMAGES)
    assert (one.caption, one.image) == ("one", encoded())
    assert (two.caption, two.image) == ("two", b"junk")
    os.symlink("/etc/passwd", tmp_path / "3.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,caption\n1.jpg,one\n3.jpg,three\n")
    assert outcomes(read(tmp_path, IMAGES)) == ["one", "outside_folder"]


def test_columns_that_are_not_there_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"caption": "a", "url": "u"}\n')
    (tmp_path / "b.jsonl").write_text('{"other": "c"}\n')
    assert outcomes(read(tmp_path)) == ["a", "missing_column"]
    with pytest.raises(SourceError, match=r"no column \['link'\]; it has \['caption', 'url'\]"):
        read(tmp_path, {"caption": "caption", "url": "link"})
    for columns in ({"caption": "caption"}, {**ADDRESSES, "image": "i"}, {"url": "url"}):
        with pytest.raises(SourceError, match="name caption, and image or url"):
            read(tmp_path, columns)


def test_rows_are_cut_out_over_all_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"caption,url\n{name}1,u\n{name}2,u\n")
    source = HuggingFaceDataset(str(tmp_path), ADDRESSES, {"x": "train[1:3]", "y": "train[3:]"})
    found = {split: list(source.pairs(split)) for split in source.splits()}
    assert [p.caption for p in found["x"]] == ["a2", "b1"]
    assert [p.caption for p in found["y"]] == ["b2"]
    assert found["x"][0].key == "x-000000001"
