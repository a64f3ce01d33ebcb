"""Shards of a shared store are brought here as they were written; earlier ones are adopted."""

import logging

import pytest
from hostile import encoded, random_image

from data.artifacts import ImageShards
from data.download.atomic_store import Store
from data.download.image_codec import process
from data.download.image_shards import OpenShard, Row
from data.download.settings import ImageRules
from data.io.journal import contents, keep_proven
from data.manifest import Manifest, described, write_manifest
from tasks.download.fetching import _bring_here, adopt

LOG = logging.getLogger("test")
NAMES = ("train-00000", "train-00001")


def filled(store):
    for number, name in enumerate(NAMES):
        shard = OpenShard(store, name)
        raw = encoded(random_image(seed=number))
        image = process(raw, ImageRules(resize="crop", size=48))
        row = Row(f"k{number}", "caption", f"http://x.org/{number}", "test")
        shard.add(row, raw, image, shard.keep(image.data))
        shard.fail(Row(f"f{number}", "caption", "http://x.org/f", "test"), "http_404")
        shard.finish()
    return store


@pytest.mark.parametrize("kind", ["images", "failures"])
def test_what_a_shared_store_does_not_give_back_is_to_be_fetched_again(tmp_path, kind):
    shared, out = filled(Store(str(tmp_path / "shared"))), tmp_path / "d0.partial"
    path = tmp_path / "shared" / kind / "train-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert _bring_here(shared, out) == ["train-00001"]
    for store in (shared, Store(str(out))):
        assert store.names(kind, ".parquet") == ["train-00000.parquet"]
        assert store.names("stats", ".json") == ["train-00000.json"]
    filled(shared)
    assert _bring_here(shared, out) == []
    assert len(keep_proven(out)[0]) == 6


def test_adopted_shards_are_proven_by_the_manifest_of_their_artifact(tmp_path):
    earlier, out = tmp_path / "download" / "e0", tmp_path / "download" / "d0.partial"
    store = filled(Store(str(earlier)))
    store.write_json("identity.json", {})
    store.write_json("plan/rows.json", {})
    files = {
        path.relative_to(earlier).as_posix(): contents(path)
        for path in sorted(earlier.rglob("*"))
        if path.is_file()
    }
    manifest = Manifest("download", 1, "e0", {}, {}, {}, described(earlier, files))
    write_manifest(earlier, manifest)
    out.mkdir()
    adopt(ImageShards("download", "e0", earlier), out)
    proven, wrong = keep_proven(out)
    assert (set(proven), wrong) == (set(files), {})
    (out / "images" / "train-00000.parquet").write_bytes(b"")
    adopt(ImageShards("download", "e0", earlier), out)  # once: not over what is there
    assert set(keep_proven(out)[1]) == {"images/train-00000.parquet"}
