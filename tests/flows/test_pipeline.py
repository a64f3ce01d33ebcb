"""The whole tiny pipeline through Prefect and MLflow, rerun, changed, changed back and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from flow import started
from prefect.exceptions import ParameterTypeError
from prefect.settings import get_current_settings
from safetensors.torch import load_file

from flows.cli.app import main as cli
from flows.pipeline import dag
from tasks.runner.registry import stage_named
from tasks.tracking import mlflow_runs

ROOT = Path(__file__).parents[2]
# So many steps that a training can be killed in between; all tests share the run ``finished``.
SLOW = {"adapters.steps": 60, "adapters.checkpoint_every": 3, "adapters.log_every": 20}
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prefect_server):
    """A var folder in which the tiny pipeline has run once."""
    folder = tmp_path_factory.mktemp("finished")
    before = os.environ.get("GILL_VAR")
    os.environ["GILL_VAR"] = str(folder)
    try:
        run_flow()
        yield folder
    finally:
        if before is None:
            del os.environ["GILL_VAR"]
        else:
            os.environ["GILL_VAR"] = before


def run_flow(overrides=None, **parameters):
    from flows.pipeline import gill

    gill(**{"recipe": "tiny", "overrides": {**SLOW, **(overrides or {})}, **parameters})
    return summary()


def summary():
    return json.loads((Path(os.environ["GILL_VAR"]) / "last_run.json").read_text())


def ran(found):
    return [name for name, stage in found["stages"].items() if stage["status"] == "ran"]


@pytest.fixture
def var_of_finished(finished, monkeypatch):
    monkeypatch.setenv("GILL_VAR", str(finished))
    return finished


def test_every_stage_is_recorded(var_of_finished):
    found = summary()
    assert list(found["stages"]) == list(dag("staged").stages)
    assert ran(found) == list(dag("staged").stages)
    assert found["state"] == "completed"
    client = mlflow_runs.client()
    for name, stage in found["stages"].items():
        run = client.get_run(stage["mlflow_run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.tags["fingerprint"] == stage["fingerprint"]
        assert run.data.tags["mlflow.parentRunId"]
        assert run.data.params, name
        assert run.data.metrics["peak_memory_bytes"] > 0
        assert len(run.inputs.dataset_inputs) == len(stage_named(name).needs) + 1
        for metric, result in stage["metrics"].items():
            assert run.data.metrics[metric] == pytest.approx(result), metric
    features = found["stages"]["clip_features"]["mlflow_run_id"]
    followed = client.get_metric_history(features, "rows_per_second")
    assert len(followed) > 2
    assert followed == sorted(followed, key=lambda m: (m.step, m.timestamp))
    adapters = found["stages"]["adapters"]["mlflow_run_id"]
    losses = client.get_metric_history(adapters, "l_r")
    assert [m.step for m in losses] == [20, 40, 60]
    for model in ("gill-adapters", "gill-mapper", "gill-decision"):
        assert client.search_model_versions(f"name='{model}'")


def test_the_gallery_has_its_images(var_of_finished):
    run_id = summary()["stages"]["evaluate"]["mlflow_run_id"]
    artifacts = {a.path for a in mlflow_runs.client().list_artifacts(run_id)}
    wanted = {
        "gallery": {"prompt", "true image", "retrieved", "gill", "linear_mapper"},
        "decisions": {"prompt", "gill", "retrieved", "decision", "votes say"},
    }
    assert {"contact_sheet.png", *(f"{name}.json" for name in wanted)} <= artifacts
    for name, columns in wanted.items():
        path = mlflow_runs.client().download_artifacts(run_id, f"{name}.json")
        table = json.loads(Path(path).read_text())
        assert columns <= set(table["columns"])
        assert len(table["data"]) == 4


def test_again_reuses_everything(var_of_finished):
    assert ran(run_flow()) == []


def test_a_model_that_was_not_registered_is_registered_on_reuse(var_of_finished):
    client = mlflow_runs.client()
    fingerprint = summary()["stages"]["adapters"]["fingerprint"]
    (version,) = client.search_model_versions(
        f"name = 'gill-adapters' and tags.fingerprint = '{fingerprint}'"
    )
    client.delete_model_version("gill-adapters", version.version)
    assert not mlflow_runs.is_registered("gill-adapters", fingerprint)
    found = run_flow()["stages"]
    (version,) = client.search_model_versions("name = 'gill-adapters'")
    assert version.run_id == found["adapters"]["mlflow_run_id"]
    assert version.tags["fingerprint"] == fingerprint


def test_a_change_reruns_what_depends_on_it_and_going_back_reuses(var_of_finished):
    changed = run_flow(overrides={"mapper.learning_rate": 0.0005})
    assert ran(changed) == ["mapper", "decision", "evaluate"]
    assert ran(run_flow()) == []


def test_one_stage_alone(var_of_finished):
    found = run_flow(stage="mapper", overrides={"mapper.learning_rate": 0.0007})
    assert ran(found) == ["mapper"]
    assert set(found["stages"]) == {"download", "clip_features", "text_targets", "adapters",
                                    "mapper"}  # fmt: skip


def test_the_joint_schedule_yields_both_artifacts_in_one_stage(var_of_finished):
    joint = {"schedule": "joint", "adapters.refine_steps": 0}
    found = run_flow(overrides=joint)
    assert ran(found) == ["joint", "index", "decision", "evaluate"]
    folder = var_of_finished / "store" / "joint" / found["stages"]["joint"]["fingerprint"]
    made = {path.name for path in folder.iterdir()}
    assert {"adapters.safetensors", "gill.safetensors", "gill.json", "states"} <= made
    # Nothing reads the states of the training pairs, the largest thing that adapters write.
    states = {path.name.partition("-")[0] for path in (folder / "states").iterdir()}
    assert states == {"validation", "test"}
    run_id = found["stages"]["joint"]["mlflow_run_id"]
    for loss in ("l_c", "l_p", "l_r", "l_g"):
        history = mlflow_runs.client().get_metric_history(run_id, loss)
        assert [m.step for m in history] == [20, 40, 60]
    assert found["stages"]["evaluate"]["metrics"]["gill_image_image_similarity"] != 0
    assert ran(run_flow(overrides=joint, stage="joint")) == []
    assert ran(run_flow()) == []  # the staged artifacts are still there
    with pytest.raises(ValueError, match="schedule has no stage 'mapper'"):
        run_flow(overrides=joint, stage="mapper")


def test_one_stage_without_its_inputs_names_what_to_run(var):
    with pytest.raises(RuntimeError, match="gill run download"):
        run_flow(stage="mapper")
    assert summary()["state"] == "failed"


def test_a_deleted_shard_is_made_again(var_of_finished):
    fingerprint = summary()["stages"]["clip_features"]["fingerprint"]
    folder = var_of_finished / "store" / "clip_features" / fingerprint / "features"
    (folder / "train-00001.parquet").unlink()
    found = run_flow()
    assert ran(found) == ["clip_features"]
    assert found["stages"]["clip_features"]["metrics"]["shards_resumed"] > 0


def test_wrong_names_fail_before_any_stage(var):
    with pytest.raises(ValueError, match=r"did you mean 'mapper\.kind'"):
        run_flow(overrides={"mapper.kin": 1})
    for wrong, right in (({"recipe": "tinny"}, "tiny"), ({"stage": "maper"}, "mapper")):
        with pytest.raises(ParameterTypeError, match=f"Input should be .*'{right}'"):
            run_flow(**wrong)
    assert not (var / "store").exists()


def killed_when(var, ready, overrides=None, how=signal.SIGKILL):
    """Run the flow in a process of its own and kill it once ``ready()`` is true."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", "--recipe", "tiny",
         "--overrides", json.dumps(overrides or SLOW)],
        cwd=ROOT,
        env={**os.environ, "GILL_VAR": str(var),
             "PREFECT_API_URL": str(get_current_settings().api.url)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(3600):
            if ready():
                break
            assert process.poll() is None, "the flow ended before it could be killed"
            time.sleep(0.05)
        else:
            pytest.fail("the flow never came to the place where it was to be killed")
    finally:
        process.send_signal(how)
        process.wait(timeout=60)


def test_killed_twice_ends_with_the_same_weights(finished, var):
    store = var / "store"
    killed_when(var, lambda: list(store.glob("clip_features/*.partial/features/*.parquet")))
    # Once there is a second checkpoint, the first is in the journal and counts as finished.
    killed_when(var, lambda: len(list(store.glob("adapters/*.partial/checkpoint-*.pt"))) > 1)
    assert cli(["store", "prune", "--yes"]) == 0  # what was made so far is still needed
    found = run_flow()
    assert found["stages"]["download"]["status"] == "reused"
    assert found["stages"]["clip_features"]["status"] == "reused"
    resumed = mlflow_runs.client().get_run(found["stages"]["adapters"]["mlflow_run_id"])
    assert resumed.data.tags["resumed"] == "true"
    runs = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
    states = Counter(run.info.status for run in runs)
    assert states["RUNNING"] == 0
    assert states["KILLED"] >= 4  # two flows and the stages that they were in

    for name in ("adapters", "mapper", "decision"):
        fingerprint = found["stages"][name]["fingerprint"]
        weights = {"mapper": "gill"}.get(name, name) + ".safetensors"
        one = load_file(store / name / fingerprint / weights)
        other = load_file(finished / "store" / name / fingerprint / weights)  # never killed
        assert one.keys() == other.keys()
        assert all((one[key] == other[key]).all() for key in one), name


def test_a_cancelled_flow_leaves_no_workers(var_of_finished):
    endless = {"runtime.workers": 2, "adapters.steps": 100_000, "adapters.checkpoint_every": 1}
    store = var_of_finished / "store"

    def workers():
        words = (p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"]))
        return [w for w in words if "tasks.runner.worker" in w and any(str(store) in x for x in w)]

    seen = []

    def trains():
        found = list(store.glob("adapters/*.partial/checkpoint-*.pt"))
        seen[:] = workers() if found else []
        return found

    killed_when(var_of_finished, trains, endless, signal.SIGTERM)
    assert len(seen) == 2
    assert not workers()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_flow_takes_its_temporary_server_along(tmp_path, var, how):
    process = started(tmp_path, var)
    for line in process.stdout:
        if "Task run 'download'" in line:
            break
    (server,) = (
        child
        for child in psutil.Process(process.pid).children()
        if "flows.local.prefect_server" in child.cmdline()
    )
    settings = server.environ()
    process.send_signal(how)
    said, _ = process.communicate(timeout=90)
    expected = -how if how == signal.SIGKILL else 128 + how
    assert process.returncode == expected, said[-3000:]
    assert psutil.wait_procs([server], timeout=30)[1] == []
    assert settings["PREFECT_SERVER_API_AUTH_STRING"]
    assert "*" not in settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert settings["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    if how == signal.SIGINT:
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith("stopped; run the same command again")
    if how != signal.SIGKILL:
        runs = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
        assert {run.info.status for run in runs} == {"KILLED"}
        assert all(run.data.tags["reason"].startswith("stopped by") for run in runs)


def test_first_runs_at_once_make_each_stage_once_and_leave_no_server(tmp_path, var):
    runs = [started(tmp_path, var) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:  # a full pipe would stop a run that others wait for
        said = [out for out, _ in pool.map(subprocess.Popen.communicate, runs)]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(x[-2000:] for x in said)
    ended = [json.loads(path.read_text()) for path in (var / "runs").glob("*.json")]
    assert [run["state"] for run in ended] == ["completed"] * 2
    made = Counter(name for run in ended for name in ran(run))
    assert made == Counter(list(dag("staged").stages))
    recorded = mlflow_runs.client().search_runs([mlflow_runs.experiment_id()])
    assert {run.info.status for run in recorded} == {"FINISHED"}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            assert process.environ().get("GILL_VAR") != str(var) or process.pid == os.getpid()
