"""What a run would do and why, on the finished artifacts of the tiny recipe."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from flows.pipeline import dag
from flows.recipes import resolve
from tasks.runner import room
from tasks.runner.dag import plan
from tasks.runner.planning import (
    NEVER,
    MemoryShortError,
    check_memory_to_hold,
    check_room_to_make,
    explain,
)
from tasks.runner.room import DiskFullError


def plans(forced=False, **overrides):
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    config = resolve("tiny", changed)
    return {p.stage: p for p in explain(plan(dag(config.schedule), config), forced)}


@pytest.fixture
def copied_var(trained, tmp_path, monkeypatch):
    """A copy of the finished store, which a test may change."""
    folder = tmp_path / "var"
    shutil.copytree(trained, folder)
    monkeypatch.setenv("GILL_VAR", str(folder))
    return folder


def test_nothing_is_to_be_made_of_what_is_there(trained_var):
    found = plans()
    assert {p.status for p in found.values()} == {"reuse"}
    assert all(p.bytes > 0 and not p.reasons for p in found.values())
    check_room_to_make(list(found.values()))


def test_an_empty_store_has_everything_to_make(var):
    found = plans()
    assert {(p.status, p.reasons, p.seconds) for p in found.values()} == {("run", (NEVER,), None)}


def test_a_changed_key_is_named_with_both_values_and_what_follows_from_it(trained_var):
    found = plans(mapper__learning_rate=0.5)
    assert [n for n, p in found.items() if p.status == "run"] == ["mapper", "decision", "evaluate"]
    assert found["mapper"].reasons == ("mapper.learning_rate: 0.001 -> 0.5",)
    assert found["decision"].reasons == ("made anew before it: mapper",)
    assert found["evaluate"].reasons == ("made anew before it: mapper, decision",)
    assert found["mapper"].seconds > 0
    assert found["mapper"].host > 1e8
    assert found["mapper"].gpu is None


def test_a_key_that_bears_on_nothing_changes_nothing(trained_var):
    found = plans(runtime__threads=1, adapters__state_batch_size=3)
    assert {p.status for p in found.values()} == {"reuse"}


def test_the_sampler_is_no_reason_to_make_targets_again(trained_var):
    found = plans(parts__generator__steps=3)
    assert found["text_targets"].status == found["mapper"].status == "reuse"
    assert found["decision"].reasons == ("parts.generator.steps: 2 -> 3",)


def test_a_changed_version_is_named(copied_var):
    (path,) = (copied_var / "store" / "mapper").glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    old = path.parent.with_name("0" * 20)
    shutil.copytree(path.parent, old)
    shutil.rmtree(path.parent)
    manifest |= {"version": 1, "fingerprint": old.name}
    del manifest["sha256"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    (reason,) = plans()["mapper"].reasons
    assert reason.startswith("version of the stage: 1 -> ")


def test_unfinished_work_is_gone_on_with(copied_var):
    (folder,) = (p for p in (copied_var / "store" / "adapters").iterdir() if p.is_dir())
    os.remove(folder / "manifest.json")
    (folder / "checkpoint-00000008.pt").write_bytes(b"x")
    folder.rename(folder.with_name(f"{folder.name}.partial"))
    found = plans()["adapters"]
    assert found.status == "resume"
    shards = len(list((copied_var / "store" / "adapters").glob("*.partial/states/*.parquet")))
    assert found.unfinished.startswith(f"{shards} shards, step 8, ")
    left = folder.with_name(f"{folder.name}.partial")
    held = sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
    assert found.held == held
    whole = replace(found, bytes=held + 100)
    assert whole.wanted == 100
    assert replace(whole, bytes=held - 1).wanted == replace(whole, bytes=None).wanted == 0
    assert replace(whole, status="reuse").wanted == 0
    forced = plans(forced=True)["adapters"]
    assert (forced.held, replace(forced, bytes=7).wanted) == (0, 7)


def test_force_makes_again_what_is_there(trained_var):
    found = plans(forced=True)
    assert {(p.status, p.reasons) for p in found.values()} == {
        ("run", ("it is to be made again (--force)",))
    }


def test_a_manifest_that_cannot_be_read_is_no_artifact(copied_var):
    (path,) = (copied_var / "store" / "index").glob("*/manifest.json")
    path.write_text("{")
    assert plans()["index"].reasons == (NEVER,)


def test_missing_room_is_counted(trained_var, monkeypatch):
    found = list(plans(mapper__learning_rate=0.5).values())
    wanted = sum(p.bytes for p in found if p.status == "run")
    monkeypatch.setattr(room, "free_bytes", lambda _: wanted - 1)
    with pytest.raises(DiskFullError, match="what is to be made, as far as earlier"):
        check_room_to_make(found)
    monkeypatch.setattr(room, "free_bytes", lambda _: wanted)
    check_room_to_make(found)


def test_missing_memory_is_of_what_is_to_be_made(trained_var):
    found = [replace(plan, host=2e9) for plan in plans(mapper__learning_rate=0.5).values()]
    found = [replace(plan, host=9e9) if plan.stage == "mapper" else plan for plan in found]
    check_memory_to_hold(found, 9e9)
    told = r"mapper holds 9\.0 GB, .* has 8\.0 GB of memory; lower the stage's batch size"
    with pytest.raises(MemoryShortError, match=told):
        check_memory_to_hold(found, 8e9)
    there = [replace(plan, status="reuse") for plan in found]
    check_memory_to_hold(there, 1.0)
    check_memory_to_hold([replace(plan, host=None) for plan in found], 1.0)
