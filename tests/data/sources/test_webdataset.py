"""Tars: every damage is counted, joined ones are read whole, no key is there twice."""

import gzip
import io
import json
import os
import tarfile
from itertools import islice

import fsspec
import huggingface_hub
import pytest
from file_server import serving_files
from hostile import encoded

from data.sources import http_stream
from data.sources.base import Bookmarks, Pair, Rejected, SourceError
from data.sources.http_stream import StreamError
from data.sources.webdataset import TarFiles

JPEG = encoded()


def tar_of(members):
    """A tar of names and bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def examples(first, last):
    return [m for k in range(first, last)
            for m in ((f"{k}.jpg", JPEG), (f"{k}.txt", f"caption {k}".encode()))]  # fmt: skip


WHOLE = tar_of(examples(0, 6))
UNIT = 512 + -(-len(JPEG) // 512) * 512 + 1024
AT = 3 * UNIT


def read(path, data=None, name="x.tar"):
    """Pairs and rejected rows of a tar."""
    if data is not None:
        (path / name).write_bytes(data)
    rows = list(TarFiles({"train": str(path / name)}).pairs("train"))
    return [r for r in rows if isinstance(r, Pair)], [r for r in rows if isinstance(r, Rejected)]


def changed(at, count, how=lambda byte: 0):
    data = bytearray(WHOLE)
    for place in range(at, at + count):
        data[place] = how(data[place])
    return bytes(data)


def test_a_whole_tar_is_read(tmp_path):
    pairs, rejected = read(tmp_path, WHOLE)
    assert [(p.key, p.caption) for p in pairs] == [
        (f"train/x.tar/{k}", f"caption {k}") for k in range(6)
    ]
    assert {p.image for p in pairs} == {JPEG}
    assert rejected == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(AT, 1, lambda b: b ^ 1), "no header before byte"),
        (changed(AT, UNIT), "data behind its end"),
        (changed(AT, 512), "no header before byte"),
        (WHOLE[:AT], "without its end blocks"),
        (WHOLE[: AT + 200], "no header before byte"),
        (WHOLE[: AT + 900], "unexpected end of data"),
    ],
)  # fmt: skip
def test_every_damage_is_counted_and_what_came_before_is_kept(tmp_path, data, said):
    pairs, (damage,) = read(tmp_path, data)
    assert [p.caption for p in pairs][:3] == [f"caption {k}" for k in range(3)]
    assert damage.reason == "damaged_tar"
    assert said in damage.place
    assert "after 3 examples" in damage.place


def test_a_cut_after_the_last_member_is_counted(tmp_path):
    pairs, (damage,) = read(tmp_path, WHOLE[: 6 * UNIT])
    assert len(pairs) == 6
    assert damage.reason == "damaged_tar"
    assert "without its end blocks" in damage.place
    _, (damage,) = read(tmp_path, WHOLE[: 6 * UNIT + 512])
    assert "without its end blocks" in damage.place


def test_joined_tars_are_read_whole(tmp_path):
    pairs, rejected = read(tmp_path, tar_of(examples(0, 3)) + tar_of(examples(3, 6)))
    assert [p.caption for p in pairs] == [f"caption {k}" for k in range(6)]
    assert rejected == []


def test_a_compressed_tar_that_is_cut_is_counted(tmp_path):
    data = gzip.compress(WHOLE)
    assert len(read(tmp_path, data, "x.tar.gz")[0]) == 6
    for cut in (len(data) // 2, len(data) - 5):
        assert [r.reason for r in read(tmp_path, data[:cut], "x.tar.gz")[1]] == ["damaged_tar"]
    flipped = bytearray(data)
    flipped[-6] ^= 1  # of the checksum
    assert [r.reason for r in read(tmp_path, flipped, "x.tar.gz")[1]] == ["damaged_tar"]


def test_equal_names_in_two_folders_have_keys_of_their_own(tmp_path):
    for folder in ("cc3m", "cc12m"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "00000.tar").write_bytes(tar_of(examples(0, 1)))
    found = [p.key for p in TarFiles({"train": str(tmp_path / "*/00000.tar")}).pairs("train")]
    assert found == ["train/cc12m/00000.tar/0", "train/cc3m/00000.tar/0"]


def test_a_key_that_comes_again_is_counted(tmp_path):
    again = [("0.jpg", JPEG), ("0.txt", b"a"), ("0.jpg", JPEG), ("0.txt", b"b")] * 2
    pairs, rejected = read(tmp_path, tar_of([*again, *examples(1, 2), *examples(0, 1)]))
    assert [p.caption for p in pairs] == ["a", "caption 1"]
    assert [r.reason for r in rejected] == ["duplicate_key"] * 4
    assert len({r.key for r in rejected} | {p.key for p in pairs}) == 6


def test_odd_members_are_skipped_or_counted(tmp_path):
    deep = b"[" * 200_000
    members = [
        ("._0.jpg", b"a Mac's notes"), *examples(0, 1),
        ("a.jpg", JPEG), ("a.json", json.dumps({"caption": "lone \ud800"}).encode()),
        ("b.jpg", JPEG), ("b.json", b'{"caption": ' + deep),
        ("c.jpg", JPEG), ("c.json", b'{"caption": ' + b"1" * 5000 + b"}"),
        ("d.jpg", JPEG), ("d.txt", b"\xff\xfe"),
        ("e.jpg", JPEG), ("f.txt", b"no image"), ("g.jpg", JPEG), ("g.json", b"[1]"),
        ("h.JPG", JPEG), ("h.json", b'{"caption": "from json", "url": "http://x.org/h"}'),
    ]  # fmt: skip
    pairs, rejected = read(tmp_path, tar_of(members))
    assert [(p.key, p.origin) for p in pairs] == [
        ("train/x.tar/0", "x.tar: 0"), ("train/x.tar/h", "http://x.org/h")
    ]  # fmt: skip
    assert [(r.key[-1], r.reason) for r in rejected] == [
        ("a", "bad_text"), ("b", "bad_member"), ("c", "bad_member"), ("d", "bad_member"),
        ("e", "no_caption"), ("f", "no_image"), ("g", "bad_member"),
    ]  # fmt: skip


def test_names_that_are_not_utf8_become_keys_that_are(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    pairs, _ = read(tmp_path, tar_of([(f"{name}.jpg", JPEG), (f"{name}.txt", b"coffee")]))
    assert pairs[0].key == r"train/x.tar/caf\xe9"
    pairs[0].key.encode()


def test_a_damaged_tar_does_not_hide_the_next(tmp_path):
    (tmp_path / "0.tar").write_bytes(WHOLE[:AT])
    (tmp_path / "1.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "2.tar").write_bytes(tar_of(examples(0, 2)))
    pairs, rejected = read(tmp_path, name="*.tar")
    assert [r.key for r in rejected] == ["train/0.tar//damaged", "train/1.tar//damaged"]
    assert [p.key for p in pairs][-2:] == ["train/2.tar/0", "train/2.tar/1"]


def test_names_that_look_alike_when_joined_have_keys_of_their_own(tmp_path):
    (tmp_path / "a").mkdir()
    one = [("0.jpg", JPEG), ("0.txt", b"x")]
    for name, member in (("a.tar", "b-c"), ("a-b.tar", "c"), ("a/b.tar", "c"), ("a.TAR", "b/c")):
        renamed = [(m.replace("0", member), data) for m, data in one]
        (tmp_path / name).write_bytes(tar_of(renamed))
    source = TarFiles({"train": str(tmp_path / "**/*.*"), "train/a.tar": str(tmp_path / "a.tar")})
    keys = [p.key for split in source.splits() for p in source.pairs(split)]
    assert len(set(keys)) == len(keys) == 5


def test_members_of_no_use_are_not_kept_and_giant_ones_are_counted(tmp_path, monkeypatch):
    limit = {".jpg": len(JPEG), ".txt": 1 << 20}
    monkeypatch.setattr("data.sources.webdataset._LARGEST", limit)
    members = [
        ("0.jpg", JPEG), ("0.txt", "\ufeffa".encode()), ("0.cls", b"1"), ("0.npy", bytes(3 << 20)),
        ("1.jpg", JPEG + b"x"), ("1.txt", b"large image"),
        ("2.jpg", JPEG), ("2.txt", b"x" * ((1 << 20) + 1)),
    ]  # fmt: skip
    (pair,), rejected = read(tmp_path, tar_of(members))
    assert pair.caption == "a"
    assert [(r.key[-1], r.reason) for r in rejected] == [("1", "too_large"), ("2", "too_large")]


def test_a_compressed_bomb_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("data.sources.opening._INFLATED_FROM", 1 << 20)
    data = gzip.compress(tar_of([*examples(0, 2), ("bomb.jpg", bytes(30 << 20))]))
    pairs, (damage,) = read(tmp_path, data, "x.tar.gz")
    assert len(pairs) == 2
    assert damage.reason == "damaged_tar"
    assert "grows to more than" in damage.place


def test_a_stream_may_be_left_in_the_middle(tmp_path):
    (tmp_path / "x.tar").write_bytes(WHOLE)
    rows = TarFiles({"train": str(tmp_path / "x.tar")}, limit=2).pairs("train")
    assert [p.key for p in rows] == ["train/x.tar/0", "train/x.tar/1"]


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(http_stream, "WAITS", (0.0,) * 3)
    with serving_files() as server:
        yield server


def captions(rows):
    return [row.caption if isinstance(row, Pair) else row.reason for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
@pytest.mark.parametrize("ranges", [True, False])
def test_an_error_of_the_network_is_no_damage(files, squeeze, ranges):
    data = squeeze(tar_of(examples(0, 100)))
    name = "0.tar.gz" if squeeze is gzip.compress else "0.tar"
    cuts = [len(data) // 3, len(data) // 2]
    url = files.url(name, data, cuts=cuts, ranges=ranges, softly=True)
    rows = list(TarFiles({"train": url}).pairs("train"))
    assert captions(rows) == [f"caption {k}" for k in range(100)]
    assert len(files.gets(name)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("length", ["said", "none"])
def test_what_is_damaged_at_its_server_is_counted_as_that(files, length):
    files.url("0.tar", WHOLE[: AT + 900], length=length)
    files.url("1.tar", tar_of(examples(6, 8)))
    url = files.url("{0..1}.tar")
    found = captions(TarFiles({"train": url}).pairs("train"))
    assert found[:3] == ["caption 0", "caption 1", "caption 2"]
    assert found[-3:] == ["damaged_tar", "caption 6", "caption 7"]


@pytest.mark.slow
def test_what_the_network_keeps_for_itself_ends_the_stream(files):
    """What may be half an example is none either: its other half may still come."""
    url = files.url("0.tar", WHOLE, cuts=[AT + UNIT - 1024] + [0] * 9, softly=True)
    rows = TarFiles({"train": url}).pairs("train")
    assert captions(islice(rows, 2)) == ["caption 0", "caption 1"]
    with pytest.raises(StreamError, match=r"0\.tar at byte .* tries in vain"):
        next(rows)


@pytest.mark.slow
def test_tars_of_the_web_are_told_apart_by_their_servers_word(files):
    url = files.url("0.tar", WHOLE)
    first = TarFiles({"train": url}).identity()
    assert TarFiles({"train": url}).identity() == first
    assert files.gets("0.tar") == [], "no byte of it is sent"
    files.files["/0.tar"].etags = ['"two"']
    assert TarFiles({"train": url}).identity() != first
    with pytest.raises(SourceError, match=r"none\.tar at byte 0: the server says 404"):
        TarFiles({"train": files.url("none.tar")}).identity()


def bookmarked(source, start, known=None):
    bookmarks = Bookmarks(start, dict(known or {}))
    return captions(source.pairs("train", bookmarks)), bookmarks.known


@pytest.mark.slow
def test_tars_before_a_bookmark_are_not_opened(files):
    for number in range(4):
        files.url(f"{number}.tar", tar_of(examples(3 * number, 3 * number + 3)))
    source = TarFiles({"train": files.url("{0..3}.tar")})
    whole, known = bookmarked(source, 0)
    assert whole == [f"caption {k}" for k in range(12)]
    assert known == {3: 1, 6: 2, 9: 3, 12: 4}
    for start in range(13):
        files.asked.clear()
        assert bookmarked(source, start, known)[0] == whole[start:]
        opened = {path for _, path, _ in files.asked}
        assert opened == {f"/{n}.tar" for n in range(start // 3, 4)}
    cut = TarFiles({"train": files.url("{0..3}.tar[2:]")}, limit=9)
    for start in range(10):
        assert bookmarked(cut, start, known)[0] == whole[2:11][start:]
        assert bookmarked(cut, start)[0] == whole[2:11][start:]


@pytest.mark.slow
def test_an_address_of_the_hub_is_read_the_same_way(files, monkeypatch):
    """The hub's client finds the file, with its token; a real server answers as the hub does."""
    data = tar_of(examples(0, 100))
    files.url("cdn/0.tar", data, cuts=[len(data) // 2], softly=True)
    hub = files.url("").rstrip("/")
    revision = '{"id": "a/b", "sha": "5a", "private": false, "siblings": []}'
    about = {"type": "file", "path": "0.tar", "size": len(data), "oid": "12ab"}
    for page in ("refs", "revision/main"):
        files.url(f"api/datasets/a/b/{page}", revision.encode())
    files.url(
        "api/datasets/a/b/tree/main?recursive=false&expand=false", json.dumps([about]).encode()
    )
    files.url("api/datasets/a/b", revision.encode())
    where = {"Location": files.url("cdn/0.tar")}
    files.url("datasets/a/b/resolve/main/0.tar", b"", statuses=[302] * 9, more=where)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(
        fsspec.config.conf, "hf", {"endpoint": hub, "token": "secret", "skip_instance_cache": True}
    )
    source = TarFiles({"train": "hf://datasets/a/b/0.tar"})
    assert captions(source.pairs("train")) == [f"caption {k}" for k in range(100)]
    assert len(files.gets("cdn/0.tar")) == 2
    one = source.identity()
    about["oid"] = "34cd"
    files.url(
        "api/datasets/a/b/tree/main?recursive=false&expand=false", json.dumps([about]).encode()
    )
    assert source.identity() != one
