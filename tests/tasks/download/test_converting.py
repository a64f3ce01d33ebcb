"""A damaged download is made again with exactly the rows that it had."""

import logging
import shutil

import pytest

from data.artifacts import ImageShards
from data.download.atomic_store import Store
from data.download.duplicates import settle_duplicates
from data.shards import read_table, shard_names
from flows.recipes import tiny
from tasks.download.converting import convert
from tasks.download.sources import source_of
from tasks.runner.store import begin, check_work, partial_of, store_folder
from tasks.tracking.stage_log import ConsoleLog

LOG = logging.getLogger("test")
CONFIG = tiny().download.model_copy(update={"limit": 12, "shard_size": 4})


def made(artifact):
    """What the stage does with the images."""
    begin(artifact, LOG)
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
