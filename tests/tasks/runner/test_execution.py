"""The stage contract around a stage made for the test: reuse, damage, resumption, lock, order."""

import logging
import threading
import time
import types

import pytest

from data.artifacts import MANIFEST
from data.io.atomic import write_json
from flows.recipes import tiny
from tasks.runner import execution as execution_module
from tasks.runner.execution import Execution, fingerprint
from tasks.runner.registry import Stage, stage_named
from tasks.runner.store import DiskFullError, MissingArtifactError, find
from tasks.tracking import mlflow_runs

PROBE = Stage("probe", 1)


@pytest.fixture
def probe(var, monkeypatch):
    """A stage that writes two files, counts its runs and can be told to fail in between."""
    module = types.SimpleNamespace(runs=0, wrote=[], fail=False, wait=0.0)

    def run(context):
        module.runs += 1
        for name in ("a", "b"):
            path = context.out / f"{name}.json"
            if not path.exists():
                write_json(path, {"seed": context.config.seed})
                module.wrote.append(name)
            if module.fail:
                raise RuntimeError("killed")
            time.sleep(module.wait)
        return {"answer": 42.0}

    module.run = run
    real = execution_module.importlib.import_module
    monkeypatch.setattr(
        execution_module.importlib,
        "import_module",
        lambda name: module if name == "tasks.stages.probe" else real(name),
    )
    return module


def execution(fingerprint="f00", **changes):
    config = tiny()
    settings = {
        "stage": PROBE, "config": config.evaluate, "parts": config.parts,
        "runtime": config.runtime, "inputs": {}, "fingerprint": fingerprint, "number": 1,
        "parent_run": None, "force": False, "logger": logging.getLogger("test"),
    }  # fmt: skip
    return Execution(**{**settings, **changes})


def test_a_finished_stage_is_reused(probe):
    first, second = execution()(), execution()()
    assert (first.status, second.status, probe.runs) == ("ran", "reused", 1)
    assert second.metrics == {"answer": 42.0}
    runs = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
    tags = {r.info.run_id: r.data.tags for r in runs}
    assert tags[second.mlflow_run_id]["made_by_run"] == first.mlflow_run_id
    assert tags[second.mlflow_run_id]["status"] == "reused"


def test_force_makes_it_again(probe):
    execution()()
    assert execution(force=True)().status == "ran"
    assert probe.wrote == ["a", "b", "a", "b"]


def test_a_deleted_file_is_rebuilt_and_only_that(probe):
    artifact = execution()().artifact
    (artifact.path / "b.json").unlink()
    assert execution()().status == "ran"
    assert probe.wrote == ["a", "b", "b"]


def test_a_changed_file_is_rebuilt(probe):
    artifact = execution()().artifact
    (artifact.path / "a.json").write_text("{}")
    assert execution()().status == "ran"
    assert probe.wrote == ["a", "b", "a"]


def test_work_of_a_failed_run_is_kept(probe):
    probe.fail = True
    with pytest.raises(RuntimeError, match="killed"):
        execution()()
    assert find("probe", "f00") is None
    runs = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
    assert [r.info.status for r in runs] == ["FAILED"]
    probe.fail = False
    execution()()
    assert probe.wrote == ["a", "b"]


def test_the_manifest_is_last(probe, monkeypatch):
    seen = []
    real = execution_module.write_manifest

    def spy(folder, manifest):
        seen.append(sorted(p.name for p in folder.iterdir()))
        assert find("probe", "f00") is None
        real(folder, manifest)

    monkeypatch.setattr(execution_module, "write_manifest", spy)
    artifact = execution()().artifact
    assert seen == [["a.json", "b.json"]]
    assert (artifact.path / MANIFEST).exists()


def test_two_runs_at_once_make_it_once(probe):
    probe.wait = 0.4
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(execution()().status)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["ran", "reused"]
    assert probe.runs == 1


def test_a_missing_input_names_the_stage_to_run(probe):
    with pytest.raises(MissingArtifactError, match="gill/probe"):
        execution(must_exist_for="evaluate")()
    assert probe.runs == 0


def test_too_little_room_is_said_before_work_begins(probe):
    runtime = tiny().runtime.model_copy(update={"minimum_free_bytes": 1 << 60})
    with pytest.raises(DiskFullError, match="minimum_free_bytes"):
        execution(runtime=runtime)()
    assert probe.runs == 0


def fingerprints(overrides):
    config = tiny().with_overrides(overrides)
    stage = stage_named("mapper")
    return fingerprint(stage, config.mapper, config.parts, {"adapters": "a", "text_targets": "t"})


def test_fingerprints_follow_what_bears_on_the_result():
    base = fingerprints({})
    assert fingerprints({}) == base
    assert fingerprints({"mapper.learning_rate": 0.5}) != base
    assert fingerprints({"mapper.log_every": 1, "runtime.threads": 1}) == base
    assert (
        fingerprints({"adapters.learning_rate": 0.5}) == base
    )  # reaches it through its input only


def test_fingerprints_follow_inputs_version_and_weights():
    config = tiny()
    stage = stage_named("adapters")
    inputs = {"download": "d", "clip_features": "c"}
    base = fingerprint(stage, config.adapters, config.parts, inputs)
    changed = {**inputs, "download": "e"}
    assert fingerprint(stage, config.adapters, config.parts, changed) != base
    newer = Stage(**{**vars(stage), "version": stage.version + 1})
    assert fingerprint(newer, config.adapters, config.parts, inputs) != base
    other = config.with_overrides({"parts.language.name": "embedded"})
    assert fingerprint(stage, config.adapters, other.parts, inputs) != base
    other = config.with_overrides({"parts.generator.steps": 7})
    assert fingerprint(stage, config.adapters, other.parts, inputs) == base
    # The targets come from the text encoder: another way of sampling makes no new ones.
    targets, images = stage_named("text_targets"), {"download": "d"}
    made = fingerprint(targets, config.text_targets, config.parts, images)
    assert fingerprint(targets, config.text_targets, other.parts, images) == made
    moved = config.with_overrides({"parts.generator.name": "embedded"})
    assert fingerprint(targets, config.text_targets, moved.parts, images) != made
