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
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.artifacts import (
    Artifact,
    Manifest,
    describe_files,
    problems_of,
    write_manifest,
)
from data.io.identity import remember_in
from tasks.config.base import Config
from tasks.config.data import ShardedConfig
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.parts.identity import identity
from tasks.parts.loading import LOADING
from tasks.paths import var_folder
from tasks.runner import launcher
from tasks.runner.context import StageContext
from tasks.runner.fan_out import convert_on_workers
from tasks.runner.registry import Stage
from tasks.runner.store import DiskFullError, MissingArtifactError, find, reopen, store_folder
from tasks.tracking import mlflow_runs
from tasks.tracking.memory import peak_memory, release_memory
from tasks.tracking.mlflow_log import MlflowStageLog


@dataclass(frozen=True)
class StageResult:
    """What happened to a stage in a pipeline run."""

    artifact: Artifact
    status: str  # ran or reused
    seconds: float
    mlflow_run_id: str
    metrics: dict[str, float]


def fingerprint(stage: Stage, config: Config, parts: PartsConfig, inputs: Mapping[str, str]) -> str:
    """Hash of everything that bears on a stage's result."""
    remember_in(var_folder() / "digests.json")
    described = {
        "stage": stage.name,
        "version": stage.version,
        "config": config.fingerprint_fields(),
        "inputs": dict(inputs),
        "parts": {name: identity(name, getattr(parts, name)) for name in stage.parts},
    }
    if stage.name == "download":
        from tasks.stages.download import source_of

        described["source"] = source_of(config).identity()  # type: ignore[arg-type]
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass
class Execution:
    """Runs one stage under the contract."""

    stage: Stage
    config: Config
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
        mlflow_runs.log_metrics(run_id, manifest.metrics)
        model = self.stage.model
        if model is not None and not mlflow_runs.is_registered(model, self.fingerprint):
            # Its maker was stopped before this, or recorded into another MLflow store.
            self._register(artifact.path, run_id)
        mlflow_runs.end_run(run_id, "FINISHED")
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
            with peak_memory() as memory:
                context = StageContext(
                    self.config,
                    self.parts,
                    self.runtime,
                    self.inputs,
                    partial,
                    MlflowStageLog(run_id, self.logger),
                )
                metrics = self._work(context)
            seconds = time.monotonic() - started
            write_manifest(partial, self._manifest(partial, metrics, run_id, seconds, resumed))
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            artifact = Artifact(self.stage.name, self.fingerprint, final)
            mlflow_runs.log_results(run_id, {**metrics, **memory, "seconds": seconds})
            mlflow_runs.log_artifacts_as_datasets(run_id, [artifact], "output")
            self._register(final, run_id)
        except BaseException:
            mlflow_runs.end_run(run_id, "FAILED")
            raise
        finally:
            release_memory()
        mlflow_runs.end_run(run_id, "FINISHED")
        return StageResult(artifact, "ran", seconds, run_id, metrics)

    def _register(self, folder: Path, run_id: str) -> None:
        name = self.stage.model
        if name is None:
            return
        version = mlflow_runs.register_model(
            name, folder, run_id, {"fingerprint": self.fingerprint}
        )
        mlflow_runs.set_tags(run_id, {"model_version": f"{name}/{version}"})

    def _work(self, context: StageContext) -> dict[str, float]:
        config = self.config
        if self.stage.computes and isinstance(config, ShardedConfig) and config.runner == "ray":
            convert_on_workers(self.stage.name, context)  # what follows finds all shards there
        size = self.runtime.workers if self.stage.workers else 1
        if size > 1 or (self.runtime.own_process and self.stage.computes):
            return launcher.run(self.stage.name, context, self.logger, size)
        with LOADING:
            module = importlib.import_module(f"tasks.stages.{self.stage.name}")
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
                "git": mlflow_runs.git_revision(),
                "mlflow_run_id": run_id,
                "resumed": resumed,
                "parts": {
                    name: getattr(self.parts, name).model_dump(mode="json")
                    for name in self.stage.whole_parts
                },
            },
        )

    def _start_run(self, tags: Mapping[str, str]) -> str:
        run_id = mlflow_runs.start_run(
            f"{self.number}-{self.stage.name}",
            {**self.tags, **tags, "stage": self.stage.name, "fingerprint": self.fingerprint},
            self.parent_run,
        )
        mlflow_runs.log_params(run_id, self.config.model_dump(mode="json"))
        for name in self.stage.whole_parts:
            mlflow_runs.log_params(run_id, {name: getattr(self.parts, name).model_dump()})
        mlflow_runs.log_artifacts_as_datasets(
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
