"""[IMG] states: kept shards are those of the same E_img, and only missing ones are computed."""

import pyarrow as pa
import pytest
import torch

from data import schemas
from data.artifacts import ImageShards
from data.io.journal import contents, files_in
from data.manifest import Manifest, described, write_manifest
from data.shards import read_table, write_shard
from gill.backbones.testing.micro_models import language_model
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec
from tasks.tracking.stage_log import ConsoleLog
from tasks.training.img_states import write_img_states


@pytest.fixture
def images(tmp_path):
    for number in range(2):
        rows = [
            {"key": f"k{number}{i}", "caption": f"caption {number} {i}", "image": b""}
            for i in range(3)
        ]
        table = pa.Table.from_pylist(rows, schema=schemas.IMAGES)
        write_shard(tmp_path / "images" / f"train-{number:05d}.parquet", table)
    return ImageShards("download", "d0", tmp_path)


@pytest.fixture
def model():
    language = language_model()
    torch.manual_seed(0)
    spec = AdapterSpec(
        num_img_tokens=2, num_visual_tokens=2, retrieval_dim=4, vision_dim=6, llm_dim=language.dim
    )
    return GillModel(language, Adapters(spec, language), 20)


def states(model, images, out):
    write_img_states(model, images, out, ConsoleLog(), 8)
    paths = sorted((out / "states").glob("*.parquet"))
    return {p.name: (p.stat().st_mtime_ns, read_table(p).to_pydict()) for p in paths}


def test_a_lost_shard_alone_is_computed_again(model, images, tmp_path):
    out = tmp_path / "a0.partial"
    first = states(model, images, out)
    (out / "states" / "train-00001.parquet").unlink()
    again = states(model, images, out)
    assert again["train-00000.parquet"] == first["train-00000.parquet"]
    assert again["train-00001.parquet"][0] != first["train-00001.parquet"][0]
    assert again["train-00001.parquet"][1] == first["train-00001.parquet"][1]


def test_states_of_another_training_are_not_kept(model, images, tmp_path):
    out = tmp_path / "a0.partial"
    first = states(model, images, out)
    (out / "states" / "train-00001.parquet").unlink()
    with torch.no_grad():
        model.adapters.img_tokens.weight.add_(0.5)
    mixed = states(model, images, out)
    fresh = states(model, images, tmp_path / "b0.partial")
    assert {n: held for n, (_, held) in mixed.items()} == {
        n: held for n, (_, held) in fresh.items()
    }
    assert mixed["train-00000.parquet"][1] != first["train-00000.parquet"][1]


def finished(model, images, out, donors=(), identity="stage", name="a1"):
    """An artifact with the states, as it is sealed."""
    partial = out / f"{name}.partial"
    write_img_states(model, images, partial, ConsoleLog(), 8, (), identity, donors)
    files = {p.relative_to(partial).as_posix(): contents(p) for p in files_in(partial)}
    write_manifest(partial, Manifest(out.name, 1, name, {}, {}, {}, described(partial, files)))
    return partial.rename(out / name)


def test_states_of_the_same_captions_are_taken_over_where_e_img_is_the_same(
    model, images, tmp_path
):
    def seal():
        folder = images.path
        paths = files_in(folder / "images")
        files = {p.relative_to(folder).as_posix(): contents(p) for p in paths}
        write_manifest(folder, Manifest("download", 1, "d0", {}, {}, {}, described(folder, files)))

    def taken(name, donor, identity="stage"):
        made = finished(model, images, tmp_path / "adapters", (donor,), identity, name)
        shards = sorted(p.name for p in (made / "states").iterdir())
        return [(made / "states" / n).samefile(donor / "states" / n) for n in shards
                if (donor / "states" / n).exists()]  # fmt: skip

    seal()
    first = finished(model, images, tmp_path / "adapters")
    rows = [{"key": "new", "caption": "another caption", "image": b""}]
    write_shard(
        images.folder / "train-00001.parquet", pa.Table.from_pylist(rows, schema=schemas.IMAGES)
    )
    seal()
    assert taken("a2", first) == [True, False]
    assert taken("a3", first, "another stage") == [False, False]
    with torch.no_grad():
        model.adapters.img_tokens.weight.add_(0.5)
    assert taken("a4", first) == [False, False]
