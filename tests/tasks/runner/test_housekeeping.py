"""Care of the store: what must stay, what can go, what is damaged."""

import json
import logging
import os
import shutil
import socket

import pytest
from filelock import FileLock

from data.artifacts import Artifact
from data.io.journal import sha256_of
from tasks.runner.housekeeping import (
    StoreError,
    damage,
    needed,
    pin,
    pinned,
    remove,
    silent,
    stored,
)
from tasks.runner.store import begin
from tasks.tracking.mlflow_runs import process_identity
from tasks.tracking.progress import read_progress, write_progress


def artifact(var, stage, fingerprint, inputs=(), made="2026-01-01T00:00:00"):
    folder = var / "store" / stage / fingerprint
    folder.mkdir(parents=True)
    (folder / "data.bin").write_bytes(fingerprint.encode() * 10)
    files = {
        "data.bin": {
            "bytes": (folder / "data.bin").stat().st_size,
            "sha256": sha256_of(folder / "data.bin"),
        }
    }
    manifest = {
        "stage": stage, "version": 1, "fingerprint": fingerprint, "config": {}, "metrics": {},
        "inputs": {name.partition("/")[0]: name for name in inputs}, "files": files,
        "provenance": {"made": made},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def unfinished(var, stage, fingerprint, inputs):
    made = Artifact(stage, fingerprint, var / "store" / stage / fingerprint)
    begin(made, [Artifact(*name.split("/"), var) for name in inputs], logging.getLogger("test"))


def recorded(var, run, stages, process):
    """The record of a run that has begun."""
    path = var / "runs" / f"{run}.json"
    path.parent.mkdir(exist_ok=True)
    made = {stage: {"fingerprint": one} for stage, one in stages.items()}
    path.write_text(json.dumps({"state": "running", "process": process, "stages": made}))


@pytest.fixture
def store(var):
    """Two chains, a leftover and a manifest that cannot be read."""
    artifact(var, "download", "d1")
    artifact(var, "adapters", "a1", ["download/d1"])
    artifact(var, "mapper", "m1", ["adapters/a1"])
    artifact(var, "download", "d2", made="2026-01-02T00:00:00")
    artifact(var, "adapters", "a2", ["download/d2"])
    unfinished(var, "mapper", "m2", ["adapters/a2"])
    (artifact(var, "index", "i1") / "manifest.json").write_text("{")
    (var / "last_run.json").write_text(json.dumps({"stages": {"mapper": {"fingerprint": "m1"}}}))
    return var


def by_name():
    return {one.name: one for one in stored() if not one.unfinished}


def test_what_is_there(store):
    assert [one.name for one in stored()] == [
        "adapters/a1", "adapters/a2", "download/d1", "download/d2", "index/i1", "mapper/m1",
        "mapper/m2",
    ]  # fmt: skip
    assert by_name()["mapper/m1"].inputs == ("adapters/a1",)
    assert by_name()["index/i1"].problem
    assert stored()[-1].unfinished


def test_the_last_run_needs_all_that_it_was_made_of(store):
    assert needed(stored(), unfinished=False) == {
        "mapper/m1": "of the last run",
        "adapters/a1": "needed by mapper/m1",
        "download/d1": "needed by adapters/a1",
    }


def test_unfinished_work_stays_and_all_that_it_is_made_of(store):
    assert needed(stored()) == needed(stored(), unfinished=False) | {
        "mapper/m2": "unfinished work",
        "adapters/a2": "needed by mapper/m2",
        "download/d2": "needed by adapters/a2",
    }
    with FileLock(store / "store/mapper/m2.lock"):
        assert needed(stored(), unfinished=False) == needed(stored()) | {"mapper/m2": "in use"}


def test_what_a_run_under_way_has_finished_stays_though_no_process_holds_it(store):
    artifact(store, "text_targets", "t1", ["download/d2"])
    recorded(store, "r1", {"text_targets": "t1"}, process_identity(os.getpid()))
    for also in (False, True):
        reasons = needed(stored(), unfinished=also)
        assert reasons["text_targets/t1"] == "of a run that is under way"
        assert reasons["download/d2"] == "needed by text_targets/t1" or also
    recorded(store, "r1", {"text_targets": "t1"}, "/".join([socket.gethostname(), "1", "0.00"]))
    assert needed(stored())["text_targets/t1"] == "of a run that was killed"
    assert "text_targets/t1" not in needed(stored(), unfinished=False)


def test_what_must_stay_and_does_not_say_its_inputs_is_named(store):
    (store / "store/index/i2.partial").mkdir(parents=True)
    assert [one.name for one in silent(stored(), needed(stored()))] == ["index/i2"]
    assert silent(stored(), needed(stored(), unfinished=False)) == []
    (store / "last_run.json").write_text(json.dumps({"stages": {"index": {"fingerprint": "i1"}}}))
    assert [one.name for one in silent(stored(), needed(stored(), False))] == ["index/i1"]


def test_a_pin_keeps_an_artifact_and_what_it_was_made_of(store):
    assert pin("adapters/a2") == "adapters/a2"
    reasons = needed(stored(), unfinished=False)
    assert reasons["adapters/a2"] == "pinned"
    assert reasons["download/d2"] == "needed by adapters/a2"
    pin("adapters/a2", keep=False)
    assert pinned() == []
    assert "download/d2" not in needed(stored(), unfinished=False)


@pytest.mark.parametrize(
    ("name", "why"), [("adapters", "stands for"), ("nothing", "there is none")]
)
def test_a_pin_must_mean_one_artifact(store, name, why):
    with pytest.raises(StoreError, match=why):
        pin(name)
    assert pinned() == []


def test_what_a_run_works_on_stays(store):
    spare = by_name()["adapters/a2"]
    with FileLock(spare.path.with_name("a2.lock")):
        reasons = needed(stored())
        assert reasons["adapters/a2"] == "in use"
        assert reasons["download/d2"] == "needed by adapters/a2"
        with pytest.raises(StoreError, match=r"adapters/a2 is in use now"):
            remove(spare)
    assert (spare.path / "manifest.json").exists()
    remove(spare)
    assert not spare.path.exists()


def test_what_was_said_of_unfinished_work_goes_with_it(store):
    (work,) = (one for one in stored() if one.unfinished)
    write_progress(work.path, {"done": 1}, {})
    remove(work)
    assert read_progress(work.path) is None


def test_every_byte_counts(store):
    found = by_name()
    assert damage(found["mapper/m1"]) == {}
    data = found["mapper/m1"].path / "data.bin"
    whole = data.read_bytes()
    data.write_bytes(b"X" + whole[1:])
    assert damage(found["mapper/m1"]) == {"data.bin": "other contents"}
    data.write_bytes(whole[:-1])
    assert damage(found["mapper/m1"]) == {"data.bin": f"{len(whole) - 1} bytes, not {len(whole)}"}
    data.unlink()
    assert damage(found["mapper/m1"]) == {"data.bin": "missing"}
    assert "manifest.json" in damage(found["index/i1"])


def test_a_last_run_that_cannot_be_read_needs_nothing(store):
    (store / "last_run.json").write_text("")
    assert needed(stored(), unfinished=False) == {}
    shutil.rmtree(store / "store")
    assert stored() == []
