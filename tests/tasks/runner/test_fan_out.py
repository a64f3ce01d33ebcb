"""Shards shared out over the workers of a cluster."""

import json
import os

import pytest
from flow import pipeline

OVERRIDES = {
    f"{stage}.{key}": value
    for stage in ("clip_features", "text_targets")
    for key, value in (("runner", "ray"), ("shards_per_task", 2))
}


def shards(var):
    return {
        path.name + path.parent.name: (path.read_bytes(), os.stat(path).st_ino)
        for stage in ("clip_features", "text_targets")
        for path in (var / "store" / stage).glob("*/*/*.parquet")
    }


@pytest.mark.timeout(500)
def test_ray_workers_make_the_same_shards_and_not_those_that_are_there(tmp_path, var):
    pytest.importorskip("prefect_ray")
    for stage in ("download", "clip_features", "text_targets"):
        pipeline(tmp_path, var, "--stage", stage)
    here = shards(var)
    assert len(here) > 8
    lost = {}
    for stage in ("clip_features", "text_targets"):
        (folder,) = [p for p in (var / "store" / stage).iterdir() if p.is_dir()]
        for path in sorted(folder.glob("*/*.parquet"))[1:]:
            lost[path.name + path.parent.name] = path
            path.unlink()
        said = pipeline(tmp_path, var, "--stage", stage, "--overrides", json.dumps(OVERRIDES))
        assert f"Task run '{stage}-t" in said  # a batch, by a worker
    there = shards(var)
    assert {name: data for name, (data, _) in there.items()} == {
        name: data for name, (data, _) in here.items()
    }
    kept = [name for name in here if name not in lost]
    assert len(kept) == 2
    assert all(here[name][1] == there[name][1] for name in kept)
