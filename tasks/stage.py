"""The stage contract, written once: fingerprint, reuse, lock, resumption, atomic record, tracking.

This is the one place that knows Prefect. A stage itself is a function ``run(context) -> metrics``
in its own module; around it, here:

- its *fingerprint* hashes its name, version, configuration, inputs and frozen weights;
- an artifact of that fingerprint with a whole manifest is *reused*;
- otherwise the stage works in ``<fingerprint>.partial`` under a file *lock*, which the kernel drops
  when its holder dies; a later process finds the folder and goes on in it;
- the *manifest* is written last and the folder renamed, so what has a final name is whole;
- reused or run, it is an MLflow run under the pipeline's run, and a Prefect task run.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout
from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ExternalSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed

from data.artifacts import (
    MANIFEST,
    Artifact,
    Manifest,
    describe_files,
    problems_of,
    write_json,
    write_manifest,
)
from tasks import launch, tracking
from tasks.config import Frozen, PartsConfig, RuntimeConfig, SharedOut
from tasks.contract import StageContext
from tasks.fanout import convert_on_workers
from tasks.frozen import LOADING, identity, release_memory, var_folder
from tasks.registry import SCHEDULES, STAGES, Stage, ancestors, stage_named, stages_of


class MissingArtifactError(RuntimeError):
    """A stage was to run alone and one of its inputs has not been made."""

    def __init__(self, wanted: str, missing: str) -> None:
        super().__init__(
            f"{wanted} needs the artifact of {missing} with this configuration, and there is none. "
            f"Run `prefect deployment run gill/{missing} --watch` (with the same recipe and "
            "overrides) or the full pipeline first."
        )


class DiskFullError(OSError):
    """Too little room is left to start a stage."""


@dataclass(frozen=True)
class StageResult:
    """What happened to a stage in a pipeline run."""

    artifact: Artifact
    status: str  # ran or reused
    seconds: float
    mlflow_run_id: str
    metrics: dict[str, float]


def store_folder() -> Path:
    """Where artifacts are kept: ``<stage>/<fingerprint>``."""
    return var_folder() / "store"


def fingerprint(stage: Stage, config: Frozen, parts: PartsConfig, inputs: Mapping[str, str]) -> str:
    """Hash of everything that bears on a stage's result."""
    described = {
        "stage": stage.name,
        "version": stage.version,
        "config": config.bearing(),
        "inputs": dict(inputs),
        "parts": {name: identity(name, getattr(parts, name)) for name in stage.parts},
    }
    if stage.name == "download":
        from tasks.download import source_of

        described["source"] = source_of(config).identity()  # type: ignore[arg-type]
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def find(stage: str, mark: str) -> Artifact | None:
    """The finished artifact of a fingerprint, or None. Its files are not checked here."""
    path = store_folder() / stage / mark
    return Artifact(stage, mark, path) if (path / MANIFEST).exists() else None


def reopen(artifact: Artifact, damaged: Collection[str]) -> None:
    """Turn a damaged artifact back into unfinished work, so that its whole files are kept."""
    for name in damaged:
        (artifact.path / name).unlink(missing_ok=True)
    (artifact.path / MANIFEST).unlink()
    partial = artifact.path.with_name(f"{artifact.fingerprint}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    artifact.path.rename(partial)


@dataclass
class Execution:
    """Runs one stage under the contract."""

    stage: Stage
    config: Frozen
    parts: PartsConfig
    runtime: RuntimeConfig
    inputs: Mapping[str, Artifact]
    fingerprint: str
    number: int
    parent_run: str | None
    force: bool
    logger: Any
    must_exist_for: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __call__(self) -> StageResult:
        """Reuse the artifact or make it."""
        started = time.monotonic()
        folder = store_folder() / self.stage.name
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{self.fingerprint}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.logger.info("another run is making this artifact; waiting for it")
            lock.acquire()
        try:
            if not self.force and (artifact := self._whole()) is not None:
                return self._reused(artifact, started)
            if self.must_exist_for is not None:
                raise MissingArtifactError(self.must_exist_for, self.stage.name)
            return self._made(started)
        finally:
            lock.release()

    def _whole(self) -> Artifact | None:
        artifact = find(self.stage.name, self.fingerprint)
        if artifact is None:
            return None
        problems = problems_of(artifact.path, artifact.manifest())
        if not problems:
            return artifact
        self.logger.warning("%s is damaged and will be rebuilt: %s", artifact.path, problems)
        reopen(artifact, problems)
        return None

    def _reused(self, artifact: Artifact, started: float) -> StageResult:
        manifest = artifact.manifest()
        maker = str(manifest.provenance.get("mlflow_run_id", ""))
        run_id = self._start_run({"status": "reused", "made_by_run": maker})
        tracking.log_metrics(run_id, manifest.metrics)
        model = self.stage.model
        if model is not None and not tracking.is_registered(model, self.fingerprint):
            # Its maker was stopped before this, or recorded into another MLflow store.
            self._register(artifact.path, run_id)
        tracking.end_run(run_id, "FINISHED")
        self.logger.info("reused %s (made by MLflow run %s)", self.fingerprint, maker)
        seconds = time.monotonic() - started
        return StageResult(artifact, "reused", seconds, run_id, manifest.metrics)

    def _made(self, started: float) -> StageResult:
        final = store_folder() / self.stage.name / self.fingerprint
        partial = final.with_name(f"{self.fingerprint}.partial")
        if self.force and final.exists():
            shutil.rmtree(final)
        resumed = partial.exists()
        partial.mkdir(parents=True, exist_ok=True)
        self._check_room(partial)
        run_id = self._start_run({"status": "ran", "resumed": str(resumed).lower()})
        if resumed:
            self.logger.info("going on with unfinished work in %s", partial)
        try:
            with tracking.peak_memory() as memory:
                context = StageContext(
                    self.config,
                    self.parts,
                    self.runtime,
                    self.inputs,
                    partial,
                    tracking.MlflowStageLog(run_id, self.logger),
                )
                metrics = self._work(context)
            seconds = time.monotonic() - started
            write_manifest(partial, self._manifest(partial, metrics, run_id, seconds, resumed))
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            artifact = Artifact(self.stage.name, self.fingerprint, final)
            tracking.log_results(run_id, {**metrics, **memory, "seconds": seconds})
            tracking.log_artifacts_as_datasets(run_id, [artifact], "output")
            self._register(final, run_id)
        except BaseException:
            tracking.end_run(run_id, "FAILED")
            raise
        finally:
            release_memory()
        tracking.end_run(run_id, "FINISHED")
        return StageResult(artifact, "ran", seconds, run_id, metrics)

    def _register(self, folder: Path, run_id: str) -> None:
        name = self.stage.model
        if name is None:
            return
        version = tracking.register_model(name, folder, run_id, {"fingerprint": self.fingerprint})
        tracking.set_tags(run_id, {"model_version": f"{name}/{version}"})

    def _work(self, context: StageContext) -> dict[str, float]:
        config = self.config
        if self.stage.computes and isinstance(config, SharedOut) and config.runner == "ray":
            convert_on_workers(self.stage.name, context)  # what follows finds all shards there
        size = self.runtime.ranks if self.stage.ranks else 1
        if size > 1 or (self.runtime.own_process and self.stage.computes):
            return launch.run(self.stage.name, context, self.logger, size)
        with LOADING:
            module = importlib.import_module(f"tasks.{self.stage.name}")
        metrics: dict[str, float] = module.run(context)
        return metrics

    def _manifest(
        self, folder: Path, metrics: dict[str, float], run_id: str, seconds: float, resumed: bool
    ) -> Manifest:
        return Manifest(
            stage=self.stage.name,
            version=self.stage.version,
            fingerprint=self.fingerprint,
            config=self.config.model_dump(mode="json"),
            inputs={name: a.fingerprint for name, a in self.inputs.items()},
            metrics=metrics,
            files=describe_files(folder),
            provenance={
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(seconds, 2),
                "git": tracking.git_revision(),
                "mlflow_run_id": run_id,
                "resumed": resumed,
                "parts": {
                    name: getattr(self.parts, name).model_dump(mode="json")
                    for name in self.stage.whole_parts
                },
            },
        )

    def _start_run(self, tags: Mapping[str, str]) -> str:
        run_id = tracking.start_run(
            f"{self.number}-{self.stage.name}",
            {**self.tags, **tags, "stage": self.stage.name, "fingerprint": self.fingerprint},
            self.parent_run,
        )
        tracking.log_params(run_id, self.config.model_dump(mode="json"))
        for name in self.stage.whole_parts:
            tracking.log_params(run_id, {name: getattr(self.parts, name).model_dump()})
        tracking.log_artifacts_as_datasets(
            run_id, list(dict.fromkeys(self.inputs.values())), "input"
        )
        return run_id

    def _check_room(self, folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        if free < self.runtime.minimum_free_bytes:
            raise DiskFullError(
                f"{free / 1e9:.2f} GB are free at {folder}, fewer than the "
                f"{self.runtime.minimum_free_bytes / 1e9:.2f} GB of runtime.minimum_free_bytes; "
                "make room and run again, finished work is kept"
            )


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(execution: Execution, waits: Sequence[Any]) -> Any:
    """The Prefect task around every stage; reuse shows as ``Cached`` on the Prefect page."""
    execution.logger = get_run_logger()
    result = execution()
    create_link_artifact(
        key=f"mlflow-{execution.stage.name.replace('_', '-')}",
        link=run_link(result.mlflow_run_id),
        link_text=f"MLflow run of {execution.stage.name}",
    )
    if result.status == "reused":
        return Completed(name="Cached", message=f"reused {execution.fingerprint}", data=result)
    return result


def run_link(run_id: str) -> str:
    """Where to browse an MLflow run; for a SQLite store, where its server would be."""
    uri = tracking.tracking_uri()
    address = uri if uri.startswith("http") else "http://127.0.0.1:5000"
    page = f"{address}/#/experiments/{tracking.experiment_id()}/runs/{run_id}"
    return f"{page}?workflowType=machine_learning"


class PipelineRun:
    """One run of the flow: calls of it wire the DAG, leaving it waits, tracks and sums up.

    Args:
        name: the recipe. config: a configuration with one field for each stage.
        only: the single stage to run on artifacts that are there, or None for all.
        force: the stages to make again although an artifact is there.
    """

    def __init__(self, name: str, config: Any, only: str | None, force: Collection[str]) -> None:
        self.name, self.config, self.only = name, config, only
        self.force = {stage_named(s).name for s in force}
        self.schedule: str = config.schedule
        offered = stages_of(self.schedule)
        if only is not None and stage_named(only).name not in offered:
            raise ValueError(
                f"the schedule {self.schedule!r} has no stage {only!r}; its stages are "
                f"{', '.join(offered)}. Set the override 'schedule', or run another stage"
            )
        self.wanted = set(offered) if only is None else {only} | ancestors(only, self.schedule)
        self.futures: dict[str, PrefectFuture[Any]] = {}
        self.fingerprints: dict[str, str] = {}
        self.results: dict[str, StageResult] = {}

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        url = str(flow_run.ui_url)
        self.tags = {
            "prefect_flow_run": str(flow_run.get_id()),
            "prefect_url": url if url.startswith("http") else "",  # a temporary server has no pages
        }
        for lost in tracking.end_lost_runs():
            get_run_logger().info("the MLflow run %s lost its process; marked KILLED", lost)
        title = f"{self.name}: {self.only or 'full pipeline'}"
        self.mlflow_run_id = tracking.start_run(title, {**self.tags, "recipe": self.name})
        tracking.log_params(self.mlflow_run_id, self.config.model_dump(mode="json"))
        create_link_artifact(
            key="mlflow-run", link=run_link(self.mlflow_run_id), link_text="MLflow run"
        )
        return self

    def __call__(self, name: str, *inputs: str | None) -> str | None:
        """Submit a stage with the names of the stages it follows; returns its own name.

        A stage that this run does not want returns None.
        """
        stage = stage_named(name)
        if name not in self.wanted:
            return None
        makers = {n: SCHEDULES[self.schedule].get(n, n) for n in stage.needs}
        if inputs != tuple(makers.values()):
            raise ValueError(f"{name} is wired to {inputs} and needs {tuple(makers.values())}")
        config: Frozen = getattr(self.config, name)
        marks = {need: self.fingerprints[maker] for need, maker in makers.items()}
        self.fingerprints[name] = fingerprint(stage, config, self.config.parts, marks)
        execution = Execution(
            stage=stage,
            config=config,
            parts=self.config.parts,
            runtime=self.config.runtime,
            inputs={
                need: Artifact(makers[need], mark, store_folder() / makers[need] / mark)
                for need, mark in marks.items()
            },
            fingerprint=self.fingerprints[name],
            number=list(STAGES).index(name) + 1,
            parent_run=self.mlflow_run_id,
            force=name in self.force,
            logger=None,
            must_exist_for=self.only if self.only not in (None, name) else None,
            tags=self.tags,
        )
        waits = [self.futures[maker] for maker in makers.values()]
        self.futures[name] = run_stage.with_options(name=name, task_run_name=name).submit(
            execution, waits
        )
        return name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failed: BaseException | None = error
        try:
            if error is None or isinstance(error, Exception):
                failed = self._wait(error)
        except (KeyboardInterrupt, ExternalSignal) as stop:
            failed = stop
        if failed is not None and not isinstance(failed, Exception):
            launch.stop_all()  # cancelled: no rank may outlive the run
        try:
            self._sum_up(failed)
        finally:
            tracking.end_run(self.mlflow_run_id, "FAILED" if failed else "FINISHED")
        if failed is not None and failed is not error:
            raise failed

    def _wait(self, failed: BaseException | None) -> BaseException | None:
        """Collect the results of every stage; returns why the first of them failed, if one did."""
        for name, future in self.futures.items():
            future.wait()
            if future.state.is_completed():
                self.results[name] = future.result()
            elif failed is None and not future.state.is_pending():
                # A stage that waits for a failed one stays pending; the failed one says why.
                failed = future.state.result(raise_on_failure=False)
        return failed

    def described(self) -> dict[str, Any]:
        """What happened to each stage, as plain values."""
        return {
            name: {
                "status": r.status,
                "seconds": round(r.seconds, 2),
                "fingerprint": r.artifact.fingerprint,
                "mlflow_run_id": r.mlflow_run_id,
                "metrics": r.metrics,
            }
            for name, r in self.results.items()
        }

    def _sum_up(self, failed: BaseException | None) -> None:
        seconds = time.monotonic() - self._started
        summary = {
            "recipe": self.name,
            "stage": self.only,
            "state": "failed" if failed else "completed",
            "error": str(failed) if failed else None,
            "flow_run_id": self.tags["prefect_flow_run"],
            "seconds": round(seconds, 2),
            "mlflow_url": run_link(self.mlflow_run_id),
            "prefect_url": self.tags["prefect_url"],
            "stages": self.described(),
        }
        write_json(var_folder() / "last_run.json", summary)
        headline = {
            f"{name}.{key}": value
            for name, r in self.results.items()
            for key, value in r.metrics.items()
        }
        tracking.log_metrics(self.mlflow_run_id, {**headline, "seconds": seconds})
        lines = ["| stage | status | seconds |", "|---|---|---|"]
        lines += [f"| {n} | {r.status} | {r.seconds:.1f} |" for n, r in self.results.items()]
        create_markdown_artifact(key="stages", markdown="\n".join(lines))
