"""The stage contract, written once: reuse, lock, resumption, atomic record, tracking.

A stage itself is a function ``run(context, *inputs) -> artifact`` in its own module; around it:

- an artifact of its fingerprint that is what its manifest says is *reused*;
- otherwise the stage works in ``<fingerprint>.partial`` under a file *lock*, which the kernel drops
  when its holder dies; a later process finds the folder and goes on with what is *proven* there;
- what it made is checked, the *manifest* written last and the folder renamed, so what has a final
  name is whole;
- reused or run, it is an MLflow run under the pipeline's run, and a Prefect task run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.artifacts import Artifact, ShardedArtifact
from data.manifest import (
    DamagedArtifactError,
    Manifest,
    forget_checks,
    listed,
    problems_of,
    write_manifest,
)
from tasks.runner.backfill import Backfill, all_made_of, converted_by
from tasks.runner.context import StageContext
from tasks.runner.dag import PlannedStage, identity_of
from tasks.runner.fingerprint import stage_fingerprint
from tasks.runner.places import work
from tasks.runner.record import StageRecord
from tasks.runner.room import LEAST_FREE, check_room, full_disk
from tasks.runner.stage import StageCall
from tasks.runner.store import (
    MissingArtifactError,
    begin,
    check_work,
    find,
    finished,
    is_whole,
    name_of,
    partial_of,
    seal,
    store_folder,
)
from tasks.tracking import mlflow_runs
from tasks.tracking.memory import peak_memory, release_memory
from tasks.tracking.mlflow_log import MlflowStageLog
from tasks.tracking.progress import forget_progress

_ATTEMPTS = 2  # at a stage whose files change under its hands


@dataclass(frozen=True)
class StageResult:
    """What happened to a stage in a pipeline run."""

    artifact: Artifact
    status: str  # ran or reused
    seconds: float
    mlflow_run_id: str
    metrics: dict[str, float]


@dataclass
class Execution:
    """Runs one stage under the contract.

    Attributes:
        record: of its runs in MLflow.
        force: make the artifact again although it is there.
        must_exist_for: the stage that runs alone; this one's artifact must then be there.
    """

    planned: PlannedStage
    record: StageRecord
    force: bool
    logger: Any
    must_exist_for: str | None = None

    def __call__(self) -> StageResult:
        """Reuse the artifact or make it.

        Raises:
            DiskFullError: there is no room; says where and how many bytes are left.
        """
        try:
            return self._found_or_made()
        except Exception as error:
            explained = full_disk(store_folder(), error)
            if explained is not None:
                raise explained from error
            raise

    def _found_or_made(self) -> StageResult:
        started = time.monotonic()
        final = self.planned.artifact.path
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{final}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.logger.info("another run is making this artifact; waiting for it")
            lock.acquire()
        try:
            if not self.force and is_whole(self.planned.artifact, self.logger):
                return self._reused(started)
            if self.must_exist_for is not None:
                raise MissingArtifactError(self.must_exist_for, self.planned.stage.name)
            return self._made(started)
        finally:
            lock.release()

    def _reused(self, started: float) -> StageResult:
        artifact = self.planned.artifact
        manifest = artifact.manifest()
        maker = str(manifest.provenance.get("mlflow_run_id", ""))
        run_id = self.record.begin({"status": "reused", "made_by_run": maker})
        mlflow_runs.log_metrics(run_id, manifest.metrics)
        # Its maker may have been stopped before this, or recorded into another MLflow store.
        self.record.register(run_id, unless_registered=True)
        mlflow_runs.end_run(run_id, "FINISHED")
        self.logger.info("reused %s (made by MLflow run %s)", artifact.fingerprint, maker)
        seconds = time.monotonic() - started
        return StageResult(artifact, "reused", seconds, run_id, manifest.metrics)

    def _made(self, started: float) -> StageResult:
        artifact = self.planned.artifact
        partial = partial_of(artifact)
        if self.force:
            for folder in (artifact.path, partial):
                if folder.exists():
                    shutil.rmtree(folder)
        resumed = begin(artifact, self.planned.inputs.values(), self.logger)
        check_room(partial, self.planned.runtime.minimum_free_bytes, LEAST_FREE)
        forget_progress(partial)  # of a process that was killed: its rate is not this one's
        run_id = self.record.begin({"status": "ran", "resumed": str(resumed).lower()})
        if resumed:
            self.logger.info("going on with unfinished work in %s", partial)
        try:
            with peak_memory() as memory:
                call = self._call(partial, run_id)
                metrics, files = self._worked(call)
            seconds = time.monotonic() - started
            measured = call.context.log.measured | memory
            took = {"seconds": round(seconds, 2), "resumed": resumed, "measured": measured}
            write_manifest(partial, self._manifest(files, metrics, run_id, took))
            seal(artifact)
            peaks = {name: value for name, value in measured.items() if name.startswith("peak_")}
            mlflow_runs.log_results(run_id, {**metrics, **peaks, "seconds": seconds})
            mlflow_runs.log_artifacts_as_datasets(run_id, [artifact], "output")
            self.record.register(run_id)
        except BaseException as error:
            self._failed(run_id, error)
            raise
        finally:
            forget_progress(partial)
            release_memory()
        mlflow_runs.end_run(run_id, "FINISHED")
        return StageResult(artifact, "ran", seconds, run_id, metrics)

    def _worked(self, call: StageCall) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
        """Run the stage; its metrics, and what a manifest says of its files.

        Raises:
            DamagedArtifactError: what it writes is not what is there afterwards.
        """
        self._backfill(call)
        for _ in range(_ATTEMPTS):
            metrics = dict(work(call, self.logger).metrics)
            files = check_work(call.context.out, self.logger)
            if files:
                return metrics, files
        name = self.planned.stage.name
        what = "no files, or files that changed or that data.io.atomic did not write"
        raise DamagedArtifactError(name, call.context.out, {call.context.out.name: what})

    def _failed(self, run_id: str, error: BaseException) -> None:
        """Record a failure, which must not be hidden by one of the record."""
        if isinstance(error, Exception):
            # Its inputs may be to blame: all of their contents are read the next time.
            forget_checks(given.path for given in self.planned.inputs.values())
        try:
            mlflow_runs.end_run_after(run_id, error)
        except Exception as second:  # noqa: BLE001 such as a full disk
            self.logger.warning("cannot end the MLflow run %s: %s", run_id, second)

    def _backfill(self, call: StageCall) -> None:
        """Begin a stage that converts shard by shard with what was made of the same before."""
        planned, log = self.planned, call.context.log
        images = converted_by(planned.config, planned.stage.makes, planned.inputs)
        if images is None or not issubclass(planned.stage.makes, ShardedArtifact):
            return
        wanted = all_made_of(identity_of(planned), images, planned.stage.makes)
        taken = Backfill(call.context.out, wanted, call.context.donors)(log)
        if taken and isinstance(log, MlflowStageLog):
            said = ", ".join(f"{count} of {len(wanted)} from {a}" for a, count in taken.items())
            mlflow_runs.set_tags(log.run_id, {"shards_reused": said})

    def _donors(self) -> tuple[Path, ...]:
        return () if self.force else tuple(finished(self.planned.stage.name))

    def _call(self, out: Path, run_id: str) -> StageCall:
        planned = self.planned
        context = StageContext(
            config=planned.config,
            parts=planned.parts,
            runtime=planned.runtime,
            out=out,
            log=MlflowStageLog(run_id, self.logger, out),
            earlier=self._earlier(),
            identity="" if planned.stage.declared.identify else identity_of(planned),
            donors=self._donors(),
        )
        return StageCall(planned.stage, context, planned.inputs)

    def _earlier(self) -> Artifact | None:
        """The finished artifact that the stage declares to begin with, if there is one."""
        planned, begins_with = self.planned, self.planned.stage.declared.begins_with
        before = None if begins_with is None else begins_with(planned.config)
        if before is None:
            return None
        fingerprints = {name: artifact.fingerprint for name, artifact in planned.inputs.items()}
        fingerprint = stage_fingerprint(planned.stage, before, planned.parts, fingerprints)
        path = planned.artifact.path.with_name(fingerprint)
        earlier = find(planned.stage.makes(planned.stage.name, fingerprint, path))
        if earlier is not None and (problems := problems_of(path)):
            self.logger.warning("not begun with %s, which is damaged: %s", path, listed(problems))
            return None
        return earlier

    def _manifest(
        self,
        files: dict[str, dict[str, Any]],
        metrics: dict[str, float],
        run_id: str,
        took: Mapping[str, Any],
    ) -> Manifest:
        planned = self.planned
        declared = planned.stage.declared
        return Manifest(
            stage=planned.stage.name,
            version=declared.version,
            fingerprint=planned.artifact.fingerprint,
            config=planned.config.model_dump(mode="json"),
            inputs={name: name_of(artifact) for name, artifact in planned.inputs.items()},
            metrics=metrics,
            files=files,
            provenance={
                **took,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "git": mlflow_runs.git_revision(),
                "mlflow_run_id": run_id,
                "parts": _described_parts(planned),
            },
        )


def _described_parts(planned: PlannedStage) -> Mapping[str, Any]:
    return {
        name: getattr(planned.parts, name).model_dump(mode="json")
        for name in planned.stage.declared.whole_parts
    }
