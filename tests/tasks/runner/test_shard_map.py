"""Stages that go by shard: the same shards on one device and on several, without images too."""

import pyarrow as pa
import pytest

from data import schemas
from data.artifacts import ImageShards
from data.shards import read_table, shard_names, write_shard
from flows.recipes import tiny
from tasks.config.download import DownloadConfig
from tasks.parts.devices import on_each_device
from tasks.runner.context import StageContext
from tasks.stages import clip_features, text_targets
from tasks.stages.download import run as download
from tasks.tracking.stage_log import ConsoleLog

pytestmark = pytest.mark.slow  # five runs of stages on frozen parts


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Image shards of the pack, and one without an image."""
    out = tmp_path_factory.mktemp("images")
    recipe = tiny()
    config = DownloadConfig(limit=20, shard_size=8)
    download(StageContext(config, recipe.parts, recipe.runtime, out, ConsoleLog()))
    write_shard(out / "images" / "train-00003.parquet", schemas.IMAGES.empty_table())
    return ImageShards("download", "f", out)


def made(stage, images, out, device="cpu", **config):
    recipe = tiny()
    runtime = recipe.runtime.model_copy(update={"device": device})
    name = stage.__name__.rpartition(".")[2]
    settings = getattr(recipe, name).model_copy(update=config)
    context = StageContext(settings, recipe.parts, runtime, out, ConsoleLog())
    return stage.run(context, images).metrics


@pytest.mark.parametrize(
    ("stage", "folder"), [(clip_features, "features"), (text_targets, "targets")]
)
def test_two_devices_write_what_one_writes(images, tmp_path, stage, folder):
    one = made(stage, images, tmp_path / "one", batch_size=3)
    two = made(stage, images, tmp_path / "two", device="cpu,cpu", batch_size=3)
    assert one["rows"] == two["rows"] == 60
    names = shard_names(images.path / "images")
    assert "train-00003.parquet" in names
    for name in names:
        left = read_table(tmp_path / "one" / folder / name)
        assert left.equals(read_table(tmp_path / "two" / folder / name))
        keys = read_table(images.path / "images" / name, ["key"])
        assert left.column("key").equals(keys.column("key"))


def test_finished_shards_are_kept(images, tmp_path):
    made(clip_features, images, tmp_path)
    (tmp_path / "features" / "train-00001.parquet").unlink()
    kept = (tmp_path / "features" / "train-00000.parquet").stat().st_mtime_ns
    again = made(clip_features, images, tmp_path)
    assert again["shards_resumed"] == len(shard_names(images.path / "images")) - 1
    assert (tmp_path / "features" / "train-00000.parquet").stat().st_mtime_ns == kept


def test_a_shard_that_cannot_be_read_stops_the_stage_and_names_it(images, tmp_path):
    from data.shards import ShardError

    broken = ImageShards("download", "g", tmp_path / "copy")
    for name in shard_names(images.path / "images"):
        write_shard(tmp_path / "copy" / "images" / name, read_table(images.path / "images" / name))
    path = tmp_path / "copy" / "images" / "train-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-00001\.parquet"):
        made(clip_features, broken, tmp_path / "out")


def test_devices_of_a_runtime():
    runtime = tiny().runtime
    assert [r.device for r in on_each_device(runtime)] == ["cpu"]
    several = runtime.model_copy(update={"device": "cuda:0,cuda:2"})
    assert [r.device for r in on_each_device(several)] == ["cuda:0", "cuda:2"]


def test_targets_in_eight_bits_go_through_the_stage(images, tmp_path):
    made(text_targets, images, tmp_path / "int8", form="int8")
    table = read_table(tmp_path / "int8" / "targets" / "train-00000.parquet", kind="text_targets")
    assert {"target", "target_scale"} < set(table.column_names)
    assert pa.types.is_fixed_size_binary(table.schema.field("target").type)
