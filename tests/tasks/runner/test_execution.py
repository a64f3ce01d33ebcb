"""The stage contract around a stage made for the test: reuse, damage, resumption, lock, order."""

import logging
import resource
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from data.artifacts import Evaluation
from data.io.atomic import WriteError, write_bytes, write_json
from data.manifest import MANIFEST, DamagedArtifactError
from flows.recipes import tiny
from tasks.config.evaluation import EvaluateConfig
from tasks.runner import execution as execution_module
from tasks.runner.context import StageContext
from tasks.runner.dag import PlannedStage
from tasks.runner.execution import Execution
from tasks.runner.fingerprint import stage_fingerprint
from tasks.runner.record import StageRecord
from tasks.runner.registry import stage_named
from tasks.runner.room import DiskFullError
from tasks.runner.stage import Stage, StageDeclaration
from tasks.runner.store import MissingArtifactError, find, store_folder
from tasks.tracking import mlflow_runs

pytestmark = pytest.mark.slow  # every stage is a run of MLflow, with a database of its own


class Probe:
    """A stage that writes two files, counts its runs and can be told to fail in between."""

    def __init__(self):
        self.runs, self.wrote, self.fail, self.wait = 0, [], False, 0.0

    def run(self, context: StageContext[EvaluateConfig]) -> Evaluation:
        self.runs += 1
        for name in ("a", "b"):
            path = context.out / f"{name}.json"
            if not path.exists():
                write_json(path, {"seed": context.config.seed})
                self.wrote.append(name)
            if self.fail:
                raise RuntimeError("killed")
            time.sleep(self.wait)
        return Evaluation.made(context.out, {"answer": 42.0})

    def execution(self, runtime=None, **changes):
        config = tiny()
        planned = PlannedStage(
            Stage.of("probe", self.run, StageDeclaration(1, "A probe")), 1, config.evaluate,
            config.parts, runtime or config.runtime, {},
            Evaluation("probe", "f00", store_folder() / "probe" / "f00"),
        )  # fmt: skip
        settings = {"force": False, "logger": logging.getLogger("test"), **changes}
        return Execution(planned, StageRecord(planned, None), **settings)


@pytest.fixture
def probe(var):
    return Probe()


def found():
    return find(Evaluation("probe", "f00", store_folder() / "probe" / "f00"))


def test_a_finished_stage_is_reused(probe):
    first, second = probe.execution()(), probe.execution()()
    assert (first.status, second.status, probe.runs) == ("ran", "reused", 1)
    assert second.metrics == {"answer": 42.0}
    measured = first.artifact.manifest().provenance["measured"]
    assert measured["peak_memory_bytes"] > 0
    runs = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
    tags = {r.info.run_id: r.data.tags for r in runs}
    assert tags[second.mlflow_run_id]["made_by_run"] == first.mlflow_run_id
    assert tags[second.mlflow_run_id]["status"] == "reused"


def test_force_makes_it_again(probe):
    probe.execution()()
    assert probe.execution(force=True)().status == "ran"
    assert probe.wrote == ["a", "b", "a", "b"]


def test_a_deleted_file_is_rebuilt_and_only_that(probe):
    artifact = probe.execution()().artifact
    (artifact.path / "b.json").unlink()
    assert probe.execution()().status == "ran"
    assert probe.wrote == ["a", "b", "b"]


def test_a_changed_file_is_rebuilt(probe):
    artifact = probe.execution()().artifact
    (artifact.path / "a.json").write_text("{}")
    assert probe.execution()().status == "ran"
    assert probe.wrote == ["a", "b", "a"]


def test_work_of_a_failed_run_is_kept(probe):
    probe.fail = True
    with pytest.raises(RuntimeError, match="killed"):
        probe.execution()()
    assert found() is None
    runs = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
    assert [r.info.status for r in runs] == ["FAILED"]
    probe.fail = False
    probe.execution()()
    assert probe.wrote == ["a", "b"]


def test_the_manifest_is_last(probe, monkeypatch):
    seen = []
    real = execution_module.write_manifest

    def spy(folder, manifest):
        seen.append(sorted(p.name for p in folder.iterdir()))
        assert found() is None
        real(folder, manifest)

    monkeypatch.setattr(execution_module, "write_manifest", spy)
    artifact = probe.execution()().artifact
    assert seen == [[".journal", "a.json", "b.json"]]
    assert (artifact.path / MANIFEST).exists()


def test_two_runs_at_once_make_it_once(probe):
    probe.wait = 0.4
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(probe.execution()().status))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["ran", "reused"]
    assert probe.runs == 1


def test_a_missing_input_names_the_stage_to_run(probe):
    with pytest.raises(MissingArtifactError, match="gill run probe"):
        probe.execution(must_exist_for="evaluate")()
    assert probe.runs == 0


def test_too_little_room_is_said_before_work_begins(probe):
    runtime = tiny().runtime.model_copy(update={"minimum_free_bytes": 1 << 60})
    with pytest.raises(DiskFullError, match="minimum_free_bytes"):
        probe.execution(runtime=runtime)()
    assert probe.runs == 0


@contextmanager
def no_file_over(size):
    """Let the kernel refuse larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_said_with_path_and_bytes_and_work_goes_on(probe, monkeypatch):
    real = execution_module.work

    def work(call, logger):
        with no_file_over(4096):
            probe.run(call.context)
            write_bytes(call.context.out / "large.bin", bytes(10_000))

    monkeypatch.setattr(execution_module, "work", work)
    with pytest.raises(WriteError, match=r"cannot write .*large.bin after [\d,]+ bytes"):
        probe.execution()()
    (folder,) = (p for p in (store_folder() / "probe").iterdir() if p.is_dir())
    left = sorted(p.name for p in folder.iterdir())
    assert left == [".journal", "a.json", "b.json"]
    monkeypatch.setattr(execution_module, "work", real)
    assert probe.execution()().status == "ran"
    assert probe.wrote == ["a", "b"]


def test_what_a_full_disk_does_to_a_record_hides_no_cause(probe, monkeypatch):
    def full(*_):
        raise RuntimeError("(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT ...]")

    monkeypatch.setattr(mlflow_runs, "log_results", full)
    monkeypatch.setattr(mlflow_runs, "end_run", full)
    with pytest.raises(DiskFullError, match=r"is full at /.* bytes are free\): .*database or disk"):
        probe.execution()()


def test_files_that_change_under_a_stage_are_made_again_or_named(probe, monkeypatch):
    real, meddled = execution_module.work, []

    def work(call, logger):
        made = real(call, logger)
        if len(meddled) < 1:
            meddled.append((call.context.out / "b.json").write_text("{}"))
        return made

    monkeypatch.setattr(execution_module, "work", work)
    assert probe.execution()().status == "ran"
    assert probe.wrote == ["a", "b", "b"]
    meddled.clear()

    def past_the_writer(call, logger):
        made = real(call, logger)
        (call.context.out / "c.json").write_text("{}")
        return made

    monkeypatch.setattr(execution_module, "work", past_the_writer)
    with pytest.raises(DamagedArtifactError, match=r"data\.io\.atomic did not write"):
        probe.execution(force=True)()


def test_contents_of_inputs_are_read_again_after_a_failure(probe, monkeypatch):
    forgotten = []
    monkeypatch.setattr(execution_module, "forget_checks", forgotten.extend)
    execution = probe.execution()
    given = Evaluation("other", "f01", store_folder() / "other" / "f01")
    execution.planned = replace(execution.planned, inputs={"images": given})

    def fails(call, logger):
        raise RuntimeError("cannot read the shard")

    monkeypatch.setattr(execution_module, "work", fails)
    with pytest.raises(RuntimeError, match="cannot read"):
        execution()
    assert forgotten == [given.path]


def fingerprints(overrides):
    config = tiny().with_overrides(overrides)
    stage = stage_named("mapper")
    return stage_fingerprint(stage, config.mapper, config.parts, {"adapters": "a", "targets": "t"})


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
    inputs = {"images": "d", "features": "c"}
    base = stage_fingerprint(stage, config.adapters, config.parts, inputs)
    changed = {**inputs, "images": "e"}
    assert stage_fingerprint(stage, config.adapters, config.parts, changed) != base
    declared = replace(stage.declared, version=stage.declared.version + 1)
    newer = replace(stage, declared=declared)
    assert stage_fingerprint(newer, config.adapters, config.parts, inputs) != base
    other = config.with_overrides({"parts.language.name": "embedded"})
    assert stage_fingerprint(stage, config.adapters, other.parts, inputs) != base
    other = config.with_overrides({"parts.generator.steps": 7})
    assert stage_fingerprint(stage, config.adapters, other.parts, inputs) == base
    # The targets come from the text encoder: another way of sampling makes no new ones.
    targets, images = stage_named("text_targets"), {"images": "d"}
    made = stage_fingerprint(targets, config.text_targets, config.parts, images)
    assert stage_fingerprint(targets, config.text_targets, other.parts, images) == made
    moved = config.with_overrides({"parts.generator.name": "embedded"})
    assert stage_fingerprint(targets, config.text_targets, moved.parts, images) != made
