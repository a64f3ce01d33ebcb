"""Only shards whose input changed are made again; the rest are links to what was proven."""

import json
import logging
import math
import os
import shutil
from dataclasses import replace
from itertools import count

import pytest
from small_store import images_table

from data.artifacts import ImageShards, TextTargets
from data.io.journal import contents, files_in
from data.manifest import MANIFEST, Manifest, described, problems_of, write_manifest
from data.shards import shard_names, write_shard
from flows.pipeline import dag
from flows.recipes import tiny
from tasks.runner import backfill as backfill_module
from tasks.runner.backfill import (
    RECORD,
    Backfill,
    all_made_of,
    converted_by,
)
from tasks.runner.context import StageContext
from tasks.runner.dag import PlannedStage, identity_of, plan
from tasks.runner.execution import Execution
from tasks.runner.fingerprint import stage_fingerprint
from tasks.runner.housekeeping import bytes_of, damage, freed_by, remove, stored
from tasks.runner.planning import explain
from tasks.runner.record import StageRecord
from tasks.runner.registry import stage_named
from tasks.runner.store import begin, check_work, finished, is_whole, partial_of, seal, store_folder
from tasks.tracking import mlflow_runs
from tasks.tracking.stage_log import ConsoleLog

LOG, TIMES = logging.getLogger("test"), count()


@pytest.fixture(autouse=True)
def _told(caplog):
    caplog.set_level(logging.INFO)


SHARDS = {f"train-{n:05d}.parquet": [f"{n}/{i}" for i in range(4)] for n in range(5)}


def downloaded(name, shards):
    """A finished download with some shards of keys."""
    folder = store_folder() / "download" / name
    for shard, keys in shards.items():
        table = images_table(keys, [f"caption of {key}" for key in keys])
        write_shard(folder / "images" / shard, table)
    files = {path.relative_to(folder).as_posix(): contents(path) for path in files_in(folder)}
    manifest = Manifest("download", 5, name, {}, {}, {}, described(folder, files))
    write_manifest(folder, manifest)
    return ImageShards("download", name, folder)


def planned_for(images, stage="text_targets", **overrides):
    recipe = tiny().with_overrides({"runtime.own_process": False, **overrides})
    stage, config = stage_named(stage), getattr(recipe, stage)
    fingerprint = stage_fingerprint(stage, config, recipe.parts, {"images": images.fingerprint})
    made = stage.makes(stage.name, fingerprint, store_folder() / stage.name / fingerprint)
    return PlannedStage(stage, 3, config, recipe.parts, recipe.runtime, {"images": images}, made)


def executed(images, force=False):
    """A stage as a pipeline runs it, with MLflow."""
    planned = planned_for(images)
    return Execution(planned, StageRecord(planned, None), force, LOG)()


def ran(images, stage="text_targets", afresh=False, **overrides):
    """A stage as an execution runs it, without MLflow; ``afresh``: with nothing of others."""
    planned = planned_for(images, stage, **overrides)
    artifact, partial = planned.artifact, partial_of(planned.artifact)
    if afresh:
        shutil.rmtree(artifact.path, ignore_errors=True)
    elif is_whole(artifact, LOG):
        return artifact
    begin(artifact, [images], LOG)
    wanted = all_made_of(identity_of(planned), images, type(artifact))
    Backfill(partial, wanted, () if afresh else list(finished(stage)))(ConsoleLog())
    context = StageContext(planned.config, planned.parts, planned.runtime, partial, ConsoleLog())
    planned.stage.run(context, images)
    files = check_work(partial, LOG)
    made = {"made": f"{next(TIMES):09d}"}
    write_manifest(
        partial, Manifest(stage, 1, artifact.fingerprint, {}, {}, {}, files, provenance=made)
    )
    seal(artifact)
    return artifact


def held(artifact):
    """Every file of an artifact but what tells of the run that made it."""
    paths = (p for p in files_in(artifact.path) if p.name != MANIFEST)
    return {p.relative_to(artifact.path).as_posix(): p.read_bytes() for p in paths}


def grown():
    """One pair more: a shard is another, one is new."""
    last = "train-00004.parquet"
    return {**SHARDS, last: [*SHARDS[last], "4/4"], "train-00005.parquet": ["5/0"]}


def inodes(artifact):
    return {p.name: p.stat().st_ino for p in (artifact.path / artifact.FOLDER).iterdir()}


@pytest.mark.slow
def test_an_execution_tells_what_it_reused(var, caplog):
    first, second = executed(downloaded("d1", SHARDS)), executed(downloaded("d2", grown()))
    assert "4 of 6 shards reused from" in caplog.text
    run = mlflow_runs.client().get_run(second.mlflow_run_id)
    assert run.data.metrics["shards_reused"] == 4
    fingerprint = first.artifact.fingerprint
    assert run.data.tags["shards_reused"] == f"4 of 6 from text_targets/{fingerprint}"
    assert problems_of(second.artifact.path) == {}
    again = executed(downloaded("d2", grown()), force=True)
    assert held(again.artifact) == held(second.artifact)
    old = set(inodes(first.artifact).values())
    assert old.isdisjoint(inodes(again.artifact).values()), "what is forced is made again"


@pytest.mark.parametrize(
    ("stage", "reused"), [("text_targets", "4 of 6"), ("clip_features", "8 of 12")]
)
def test_more_pairs_remake_what_changed_and_the_rest_is_the_same_file(var, stage, reused, caplog):
    first = ran(downloaded("d1", SHARDS), stage)
    before, second = held(first), ran(downloaded("d2", grown()), stage)
    assert f"{reused} shards reused from" in caplog.text, "of features their hashes too"
    old, new = inodes(first), inodes(second)
    assert {name for name in new if new[name] == old.get(name)} == set(list(SHARDS)[:4])
    assert held(first) == before, "the earlier artifact stays as it was"
    assert problems_of(first.path) == problems_of(second.path) == {}
    made = held(second)
    assert held(ran(downloaded("d2", grown()), stage, afresh=True)) == made


def test_features_serve_whatever_pairs_are_dropped(var):
    """Another bound is another artifact whose features are the same files."""
    images = downloaded("d1", SHARDS)
    every = ran(images, "clip_features")
    bounds = ({"clip_features.minimum_similarity": bound} for bound in (-0.9, -0.8))
    for some in (ran(images, "clip_features", **bound) for bound in bounds):
        assert some.fingerprint != every.fingerprint
        assert inodes(some) == inodes(every)
        name = "hashes/train-00000.parquet"
        assert (some.path / name).stat().st_ino == (every.path / name).stat().st_ino
        assert set(shard_names(some.path / "kept")) == set(SHARDS)


def test_the_newest_artifact_is_taken_from_first(var, caplog):
    ran(downloaded("d1", SHARDS))
    newer = ran(downloaded("d2", grown()))
    ran(downloaded("d3", {**grown(), "train-00006.parquet": ["6/0"]}))
    said = caplog.text
    assert f"6 of 7 shards reused from {newer.fingerprint}" in said


def test_another_stage_identity_reuses_nothing(var):
    first = ran(downloaded("d1", SHARDS))
    other = ran(downloaded("d2", grown()), **{"text_targets.form": "int8"})
    assert set(inodes(other).values()).isdisjoint(inodes(first).values())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_candidate_is_refused_and_made_again(var, caplog):
    first = ran(downloaded("d1", SHARDS))
    flip(first.path / "targets" / "train-00001.parquet")
    (first.path / "targets" / "train-00002.parquet").unlink()
    second = ran(downloaded("d2", grown()))
    said = caplog.text
    assert "2 of 6 shards reused" in said
    assert said.count("not reused, since it is damaged or gone") == 2
    made = held(second)
    assert made == held(ran(downloaded("d2", grown()), afresh=True))
    assert set(problems_of(first.path)) == {
        "targets/train-00001.parquet", "targets/train-00002.parquet"
    }  # fmt: skip


def test_a_record_that_was_changed_is_not_believed(var):
    first = ran(downloaded("d1", SHARDS))
    record = json.loads((first.path / RECORD).read_text())
    names = sorted(record)
    swapped = {**record, names[0]: record[names[1]], names[1]: record[names[0]]}
    (first.path / RECORD).write_text(json.dumps(swapped, indent=2) + "\n")
    second = ran(downloaded("d2", grown()))
    assert set(inodes(second).values()).isdisjoint(inodes(first).values())


def test_a_run_that_is_killed_while_it_links_goes_on(var, monkeypatch):
    first = ran(downloaded("d1", SHARDS))
    real, linked = backfill_module.link_or_copy, []

    def dies(source, target):
        if len(linked) == 2:
            raise KeyboardInterrupt
        linked.append(target)
        return real(source, target)

    monkeypatch.setattr(backfill_module, "link_or_copy", dies)
    with pytest.raises(KeyboardInterrupt):
        ran(downloaded("d2", grown()))
    monkeypatch.setattr(backfill_module, "link_or_copy", real)
    assert problems_of(first.path) == {}
    second = ran(downloaded("d2", grown()))
    assert problems_of(second.path) == {}
    assert sum(inodes(second)[n] == i for n, i in inodes(first).items()) == 4
    made = held(second)
    assert made == held(ran(downloaded("d2", grown()), afresh=True))


def test_a_file_system_without_links_gets_copies(var, monkeypatch):
    first = ran(downloaded("d1", SHARDS))

    def refuses(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuses)
    second = ran(downloaded("d2", grown()))
    assert set(inodes(second).values()).isdisjoint(inodes(first).values())
    for name in SHARDS:
        if name != "train-00004.parquet":
            assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes()


def test_pruning_one_artifact_leaves_the_other_whole_and_sizes_count_once(var):
    first = ran(downloaded("d1", SHARDS))
    second = ran(downloaded("d2", grown()))
    ones = {s.fingerprint: s for s in stored() if s.stage == "text_targets"}
    old, new = ones[first.fingerprint], ones[second.fingerprint]
    shared = sum((first.folder / n).stat().st_size for n in list(SHARDS)[:4])
    assert bytes_of([old, new]) == old.bytes + new.bytes - shared
    assert freed_by([old]) == old.bytes - shared
    assert freed_by([old, new]) == bytes_of([old, new])
    remove(old)
    assert damage(new) == {}
    (again,) = (s for s in stored() if s.stage == "text_targets")
    assert freed_by([again]) == again.bytes
    assert TextTargets(again.stage, again.fingerprint, again.path).names() == sorted(grown())


def test_a_shard_that_is_damaged_in_both_is_mended_in_each(var):
    images = downloaded("d1", SHARDS), downloaded("d2", grown())
    first, second = (ran(one) for one in images)
    before = held(second)
    flip(first.folder / "train-00000.parquet")  # the same bytes on the disk
    assert set(problems_of(second.path)) == {"targets/train-00000.parquet"}
    assert ran(images[1]) == second
    assert held(second) == before
    assert set(problems_of(first.path)) == {"targets/train-00000.parquet"}
    ran(images[0])
    assert problems_of(first.path) == {}
    assert inodes(first)["train-00000.parquet"] == inodes(second)["train-00000.parquet"]


def explained(images):
    """The plan of ``text_targets`` on a download that is there."""
    planned, recipe = planned_for(images), tiny()
    before = PlannedStage(
        stage_named("download"), 1, recipe.download, recipe.parts, recipe.runtime, {}, images
    )
    return explain({"download": before, "text_targets": planned})[1]


def measured(artifact, seconds, **metrics):
    """Have an artifact's manifest say what its making took."""
    manifest = artifact.manifest()
    provenance = {**manifest.provenance, "seconds": seconds}
    write_manifest(artifact.path, replace(manifest, metrics=metrics, provenance=provenance))


def test_a_plan_counts_the_time_of_the_new_shards_alone(var):
    first, second = downloaded("d1", SHARDS), downloaded("d2", grown())
    # 20 rows of 5 shards in 10 s, and 4 s for all else.
    measured(ran(first), 14.0, rows=20.0, rows_per_second=2.0, shards_resumed=0.0)
    assert explained(second).seconds == 4.0 + 2 * 4 / 2.0
    # One that took over 4 of 6 shards of 4 rows: 4 s for the others, 4 s for all else.
    again = ran(second)
    measured(again, 8.0, rows=24.0, rows_per_second=2.0, shards_resumed=4.0)
    third = downloaded("d3", {**grown(), "train-00006.parquet": ["6/0"]})
    assert explained(third).shards == "1 of 7 shards new"
    assert explained(third).seconds == 4.0 + 1 * 4 / 2.0
    # One of links alone tells no rate; the first's is taken.
    measured(again, 3.0, rows=24.0, rows_per_second=0.0, shards_resumed=6.0)
    assert explained(third).seconds == 4.0 + 1 * 4 / 2.0


def test_a_plan_says_how_many_shards_are_new(var):
    def shards(images):
        return explained(images).shards

    first, second = downloaded("d1", SHARDS), downloaded("d2", grown())
    assert shards(first) == "5 of 5 shards new"
    ran(first)
    assert shards(first) == ""
    assert shards(second) == "2 of 6 shards new"
    more = explained(second)
    (made,) = finished("text_targets").values()
    size = sum(file["bytes"] for file in made.files.values())
    assert more.bytes == round(size * 6 / 5), "as many times the bytes as there are shards"
    assert more.wanted == math.ceil(more.bytes / 3), "what is linked takes no room"
    shutil.rmtree(second.path)
    assert shards(second) == ""


def test_which_stages_convert_shard_by_shard():
    found = plan(dag("staged"), tiny())
    assert {n for n, s in found.items() if converted_by(s.config, s.stage.makes, s.inputs)} == {
        "clip_features", "text_targets"
    }  # fmt: skip
    assert identity_of(found["text_targets"]) != identity_of(found["clip_features"])
