"""The one place that knows MLflow: runs, metrics, images, tables, data sets, model versions.

Everything goes through ``MlflowClient`` with explicit run ids, so stages that run side by side in
threads cannot write into each other's runs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from data.artifacts import Artifact
from data.io.links import link_or_copy
from tasks.paths import ROOT, var_folder
from tasks.tracking.databases import prepare_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient


EXPERIMENT = "gill"
PROCESS_LABEL = "gill.process"  # of a Prefect flow run: which process it is
# What ends a run from outside, by the exception that it raises.
_STOPS = {
    "KeyboardInterrupt": "Ctrl-C",
    "TerminationSignal": "SIGTERM, as Prefect does when a run is cancelled",
    "StageStopped": "the end of its pipeline's run",
    "SystemExit": "SIGTERM",
}


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite file that the local server also reads."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{var_folder() / 'mlflow.db'}"


@cache
def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    if uri.startswith("sqlite:///"):
        # Else MLflow makes the tables itself, in every process that comes first, all at once.
        prepare_mlflow(Path(uri.removeprefix("sqlite:///")), print)
    import mlflow

    # Not mlflow.set_tracking_uri: it writes into the environment, which children would inherit.
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def client() -> MlflowClient:
    """The client of the current tracking URI."""
    return _client(tracking_uri())


def experiment_id() -> str:
    """The experiment ``gill``; made once, by one process, with its artifacts under ``var/``."""
    known = client()  # before the lock, which it takes too while it makes tables
    var_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(var_folder() / "mlflow.lock", mode=0o600):
        found = known.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = (var_folder() / "mlartifacts").as_uri()
        # Without this kind MLflow's page takes the runs for evaluations of prompts.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(known.create_experiment(EXPERIMENT, location, tags))


@cache
def git_revision() -> str:
    """The commit that runs, with ``+changes`` where the tree differs from it."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changed else commit


def start_run(name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
    """Start a run and return its id."""
    all_tags = {**tags, "git": git_revision(), "process": process_identity(os.getpid())}
    if parent is not None:
        all_tags["mlflow.parentRunId"] = parent
    run = client().create_run(experiment_id(), run_name=name, tags=all_tags)
    return str(run.info.run_id)


def process_identity(pid: int) -> str:
    """A process by host, number and start, so that a number used again is another process."""
    import psutil

    return f"{socket.gethostname()}/{pid}/{psutil.Process(pid).create_time():.2f}"


def is_lost(fingerprint: str) -> bool:
    """Whether the process of a mark was on this host and is gone."""
    import psutil

    host, _, numbers = fingerprint.partition("/")
    if host != socket.gethostname():
        return False
    pid = numbers.partition("/")[0]
    try:
        return process_identity(int(pid)) != fingerprint
    except psutil.NoSuchProcess:
        return True


def end_lost_runs() -> list[str]:
    """End what processes of this host left behind as running when they were killed.

    Returns:
        The runs' names.
    """
    found = client().search_runs(
        [experiment_id()], "attributes.status = 'RUNNING'", max_results=1000
    )
    lost = [run for run in found if is_lost(run.data.tags.get("process", ""))]
    for run in lost:
        end_run(run.info.run_id, "KILLED", "its process was killed")
    return [str(run.info.run_name) for run in lost]


def end_run(run_id: str, status: str, reason: str = "") -> None:
    """End a run as FINISHED, FAILED or KILLED, with its reason as a tag."""
    if reason:
        set_tags(run_id, {"reason": reason[:500]})
    client().set_terminated(run_id, status)


def end_run_after(run_id: str, error: BaseException) -> None:
    """End a run that did not come to its end: one that was stopped is KILLED, others FAILED."""
    if isinstance(error, Exception):
        end_run(run_id, "FAILED", f"{type(error).__name__}: {error}")
    else:
        end_run(run_id, "KILLED", f"stopped by {_STOPS.get(type(error).__name__, 'a signal')}")


def log_metrics(
    run_id: str, values: Mapping[str, float], step: int | Mapping[str, int] = 0
) -> None:
    """Write numbers in one request, at one step or each at its own (0 where there is none)."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    steps = dict.fromkeys(values, step) if isinstance(step, int) else step
    client().log_batch(
        run_id, [Metric(k, float(v), now, steps.get(k, 0)) for k, v in values.items()]
    )


def log_results(run_id: str, values: Mapping[str, float]) -> None:
    """Write what a run has come to: a metric that was followed over steps ends with it."""
    followed = values.keys() & client().get_run(run_id).data.metrics.keys()
    steps = {
        name: max(metric.step for metric in client().get_metric_history(run_id, name))
        for name in followed
    }
    log_metrics(run_id, values, steps)


def log_params(run_id: str, values: Mapping[str, Any]) -> None:
    """Write a configuration, nested keys joined by dots."""
    from mlflow.entities import Param

    flat = [Param(k, str(v)[:5000]) for k, v in flatten(values).items()]
    for start in range(0, len(flat), 100):
        client().log_batch(run_id, params=flat[start : start + 100])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    from mlflow.entities import RunTag

    client().log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])


def stages_of(run_id: str) -> dict[str, str]:
    """Fingerprints by stage of a pipeline's run, or the one of a stage's run.

    Raises:
        LookupError: there is no such run, or it finished no stage.
    """
    run = _run(run_id)
    runs = [run]
    if "stage" not in run.data.tags:
        query = f"tags.`mlflow.parentRunId` = '{run_id}'"
        runs = list(client().search_runs([run.info.experiment_id], query))
    found = {
        str(r.data.tags["stage"]): str(r.data.tags["fingerprint"])
        for r in runs
        if r.info.status == "FINISHED" and "stage" in r.data.tags
    }
    if not found:
        raise LookupError(f"the MLflow run {run_id!r} finished no stage of the pipeline")
    return found


def params_of(run_id: str, prefix: str) -> dict[str, str]:
    """Parameters of a run whose names begin with ``prefix.``, without it.

    Raises:
        LookupError: there is no such run.
    """
    params = _run(run_id).data.params
    return {
        k.removeprefix(f"{prefix}."): v for k, v in params.items() if k.startswith(f"{prefix}.")
    }


def _run(run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client().get_run(run_id)
    except MlflowException as error:
        raise LookupError(f"there is no MLflow run {run_id!r} at {tracking_uri()}") from error


def log_artifacts_as_datasets(run_id: str, artifacts: Sequence[Artifact], context: str) -> None:
    """Show a stage's input or output artifacts as MLflow data sets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for artifact in artifacts:
        described = Dataset(
            name=artifact.stage,
            digest=artifact.fingerprint[:12],
            source_type="local",
            source=f'{{"uri": "{artifact.path.as_uri()}"}}',
            profile=None,
            schema=None,
        )
        inputs.append(DatasetInput(described, [InputTag("mlflow.data.context", context)]))
    if inputs:
        client().log_inputs(run_id, inputs)


def register_model(name: str, folder: Path, run_id: str, tags: Mapping[str, str]) -> str:
    """Register a folder's weights as the next version of a model and return the version.

    An MLflow server takes a local path as a source only from its run's artifacts. Where these lie
    on the folder's disk, the weights and their descriptions get a second name there and no second
    copy; elsewhere they are copied. The description says which folder it is.
    """
    from mlflow.exceptions import MlflowException

    root = str(client().get_run(run_id).info.artifact_uri)
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json"}:
            _log_file(run_id, root, path, "model")
    try:
        client().get_registered_model(name)
    except MlflowException:
        client().create_registered_model(name, description="A trained part of GILL")
    version = client().create_model_version(
        name, f"{root}/model", run_id=run_id, tags=dict(tags),
        description=f"The weights of {folder}, whose manifest.json has their digests",
    )  # fmt: skip
    return str(version.version)


def _log_file(run_id: str, root: str, path: Path, folder: str) -> None:
    """Have a file among a run's artifacts, whose address is ``root``: linked if they are here."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if root.startswith(("file:", "/")):
        link_or_copy(path, Path(local_file_uri_to_path(root)) / folder / path.name)
    else:
        client().log_artifact(run_id, str(path), folder)


def is_registered(name: str, fingerprint: str) -> bool:
    """Whether a version of a model was made from an artifact."""
    wanted = f"name = '{name}' and tags.fingerprint = '{fingerprint}'"
    return len(client().search_model_versions(wanted, max_results=1)) > 0
