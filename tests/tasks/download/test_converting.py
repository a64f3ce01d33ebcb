"""A damaged download is made again with exactly the rows that it had."""

import io
import logging
import shutil
import tarfile

import pytest
from file_server import serving_files
from hostile import encoded

from data.artifacts import ImageShards
from data.download.atomic_store import Store
from data.download.duplicates import settle_duplicates
from data.shards import read_table, shard_names
from data.sources import http_stream
from data.sources.http_stream import StreamError
from flows.recipes import tiny
from tasks.config.download import DownloadConfig
from tasks.download.converting import _chunks, convert
from tasks.download.sources import source_of
from tasks.runner.store import begin, check_work, partial_of, store_folder
from tasks.tracking.stage_log import ConsoleLog

LOG = logging.getLogger("test")
CONFIG = tiny().download.model_copy(update={"limit": 12, "shard_size": 4})


def made(artifact):
    """What the stage does with the images."""
    begin(artifact, [], LOG)
    out = partial_of(artifact)
    convert(CONFIG, source_of(CONFIG), out, ConsoleLog())
    names = [name.removesuffix(".parquet") for name in shard_names(out / "images")]
    settle_duplicates(Store(str(out)), names, 10, {"content"})
    assert check_work(out, LOG)
    return {
        f"{kind}/{name}": read_table(out / kind / name).to_pydict()
        for kind in ("images", "failures")
        for name in shard_names(out / kind)
    }


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def swap(path):
    other = path.with_name("train-00001.parquet")
    path.rename(path.with_name("x"))
    other.rename(path)
    path.with_name("x").rename(other)


DAMAGES = {
    "deleted": lambda p: p.unlink(),
    "flipped": flip,
    "emptied": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "swapped": swap,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GILL_VAR", str(tmp_path_factory.mktemp("var")))
        artifact = ImageShards("download", "d0", store_folder() / "download" / "d0")
        return artifact, made(artifact)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("folder", ["images", "failures"])
def test_damaged_shards_are_made_with_the_rows_they_had(undisturbed, var, folder, kind):
    whole, rows = undisturbed
    artifact = ImageShards("download", "d0", store_folder() / "download" / "d0")
    shutil.copytree(partial_of(whole), partial_of(artifact))
    DAMAGES[kind](partial_of(artifact) / folder / "train-00000.parquet")
    assert made(artifact) == rows


@pytest.mark.parametrize("name", ["duplicates.parquet", "duplicates-copy.parquet", "stats"])
def test_so_are_statistics_and_either_record_of_duplicates(undisturbed, var, name):
    whole, rows = undisturbed
    artifact = ImageShards("download", "d0", store_folder() / "download" / "d0")
    shutil.copytree(partial_of(whole), partial_of(artifact))
    before = read_table(partial_of(whole) / "duplicates.parquet").to_pydict()
    path = partial_of(artifact) / name
    if path.is_dir():
        path = path / "train-00001.json"
    flip(path)
    assert made(artifact) == rows
    assert read_table(partial_of(artifact) / "duplicates.parquet").to_pydict() == before


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(http_stream, "WAITS", (0.0,) * 2)
    with serving_files() as server:
        yield server


def tar_of(first, last):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for k in range(first, last):
            for name, data in ((f"{k}.jpg", encoded()), (f"{k}.txt", b"caption %d" % k)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return held.getvalue()


def converted(config, out):
    convert(config, source_of(config), out, ConsoleLog())
    return {
        name: read_table(out / "images" / name).column("caption").to_pylist()
        for name in shard_names(out / "images")
    }


@pytest.mark.slow
def test_a_download_goes_on_without_its_finished_tars(files, tmp_path):
    """Four tars of six pairs, shards of four: the third tar breaks off for good, once."""
    for k in range(4):
        files.url(f"{k}.tar", tar_of(6 * k, 6 * k + 6))
    pattern = files.url("{0..3}.tar")
    config = DownloadConfig(source="webdataset", paths={"train": pattern}, shard_size=4)
    whole = converted(config, tmp_path / "undisturbed.partial")
    assert [len(v) for v in whole.values()] == [4] * 6
    out = tmp_path / "d0.partial"
    size = len(files.files["/2.tar"].data)
    files.files["/2.tar"].cuts = [size // 2] + [0] * 3
    with pytest.raises(StreamError, match=r"2\.tar at byte .*run again: finished shards are kept"):
        converted(config, out)
    assert shard_names(out / "images") == [f"train-0000{k}.parquet" for k in range(3)]
    assert not any(read_table(p).num_rows for p in (out / "failures").glob("*"))
    files.asked.clear()
    assert converted(config, out) == whole
    assert {path for _, path, _ in files.asked} == {"/2.tar", "/3.tar"}
    files.asked.clear()
    assert converted(config, out) == whole
    assert files.asked == [], "of what is finished nothing is asked"
    for name in ("train-00001", "train-00002"):
        (out / "images" / f"{name}.parquet").unlink()
    assert converted(config, out) == whole
    assert {path for _, path, _ in files.asked} == {"/0.tar", "/1.tar"}, (
        "of a repair, what it needs"
    )
    tables = [[read_table(p / "images" / n).to_pydict() for n in whole]
              for p in (out, tmp_path / "undisturbed.partial")]  # fmt: skip
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_pairs_before_an_error_are_kept_as_far_as_they_fill_a_shard(files, tmp_path):
    data = tar_of(0, 100)
    url = files.url("0.tar", data, cuts=[len(data) // 2] + [0] * 3, softly=True)
    config = DownloadConfig(source="webdataset", paths={"train": url}, shard_size=8)
    with pytest.raises(StreamError):
        converted(config, tmp_path / "d0.partial")
    kept = shard_names(tmp_path / "d0.partial" / "images")
    assert len(kept) * 8 >= 40
    whole = converted(config, tmp_path / "d0.partial")
    assert [c for captions in whole.values() for c in captions] == [
        f"caption {k}" for k in range(100)
    ]


def test_a_source_that_fails_at_the_row_ahead_has_given_its_chunk():
    def rows():
        yield from range(4)
        raise OSError("cut")

    assert list(_chunks(iter(range(4)), 2)) == [([0, 1], False), ([2, 3], True)]
    assert list(_chunks(iter(range(3)), 2)) == [([0, 1], False), ([2], True)]
    assert list(_chunks(iter(()), 2)) == []
    chunks = _chunks(rows(), 2)
    assert [next(chunks), next(chunks)] == [([0, 1], False), ([2, 3], False)]
    with pytest.raises(OSError, match="cut"):
        next(chunks)
