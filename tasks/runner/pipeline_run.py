"""One run of the flow: submits the stages of a DAG, waits, and sums up."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import ExternalSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed

from tasks.paths import mlflow_url
from tasks.runner.dag import Dag, plan
from tasks.runner.execution import Execution, StageResult
from tasks.runner.record import StageRecord
from tasks.runner.registry import stage_named
from tasks.runner.run_records import write_begun, write_ended
from tasks.runner.stopping import stop_stages, stoppable
from tasks.tracking import mlflow_runs


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(execution: Execution, waits: Sequence[Any]) -> Any:
    """The Prefect task around every stage; reuse shows as ``Cached`` on the Prefect page."""
    execution.logger = get_run_logger()
    with stoppable():
        result = execution()
    name = execution.planned.stage.name
    create_link_artifact(
        key=f"mlflow-{name.replace('_', '-')}",
        link=run_link(result.mlflow_run_id),
        link_text=f"MLflow run of {name}",
    )
    if result.status == "reused":
        message = f"reused {result.artifact.fingerprint}"
        return Completed(name="Cached", message=message, data=result)
    return result


def run_link(run_id: str) -> str:
    """Where to browse an MLflow run; for a SQLite store, where its server would be."""
    uri = mlflow_runs.tracking_uri()
    address = uri if uri.startswith("http") else mlflow_url()
    page = f"{address}/#/experiments/{mlflow_runs.experiment_id()}/runs/{run_id}"
    return f"{page}?workflowType=machine_learning"


def mark_process() -> None:
    """Say in Prefect which process the current flow run is: dead runs are told by it."""
    run_id = flow_run.get_id()
    if run_id is not None:
        identity: bool | int | float | str = mlflow_runs.process_identity(os.getpid())
        mark = {mlflow_runs.PROCESS_LABEL: identity}
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(str(run_id)), mark)


class PipelineRun:
    """One run of the flow: submits stages, leaving it waits, tracks and sums up.

    Args:
        name: the recipe. config: ``tasks.runner.dag.PipelineSettings``, a pydantic model.
        dag: the stages of the configuration's schedule.
        only: the single stage to run on artifacts that are there, or None for all.
        force: the stages to make again although an artifact is there.

    Raises:
        ValueError: ``only`` is none of the stages.
    """

    def __init__(
        self, name: str, config: Any, dag: Dag, only: str | None, force: Collection[str]
    ) -> None:
        self.name, self.config, self.only = name, config, only
        self.force = {stage_named(s).name for s in force}
        self.makers = dag.makers
        self.planned = plan(dag, config, dag.wanted(only))
        self.futures: dict[str, PrefectFuture[Any]] = {}
        self.results: dict[str, StageResult] = {}

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        url = str(flow_run.ui_url)
        self.tags = {
            "prefect_flow_run": str(flow_run.get_id()),
            "prefect_url": url if url.startswith("http") else "",  # a temporary server has no pages
        }
        mark_process()
        for lost in mlflow_runs.end_lost_runs():
            get_run_logger().info("the MLflow run %s lost its process; marked KILLED", lost)
        title = f"{self.name}: {self.only or 'full pipeline'}"
        self.mlflow_run_id = mlflow_runs.start_run(title, {**self.tags, "recipe": self.name})
        mlflow_runs.log_params(self.mlflow_run_id, self.config.model_dump(mode="json"))
        create_link_artifact(
            key="mlflow-run", link=run_link(self.mlflow_run_id), link_text="MLflow run"
        )
        artifacts = [planned.artifact for planned in self.planned.values()]
        write_begun(self._identified() | {"mlflow_run_id": self.mlflow_run_id}, artifacts)
        return self

    def submit(self) -> None:
        """Submit the stages that this run wants, each behind those that make its inputs."""
        for name, planned in self.planned.items():
            execution = Execution(
                planned=planned,
                record=StageRecord(planned, self.mlflow_run_id, self.tags),
                force=name in self.force,
                logger=None,
                must_exist_for=self.only if self.only not in (None, name) else None,
            )
            waits = [self.futures[maker] for maker in self.makers[name].values()]
            self.futures[name] = run_stage.with_options(name=name, task_run_name=name).submit(
                execution, waits
            )

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
        except (KeyboardInterrupt, SystemExit, ExternalSignal) as stop:
            failed = stop
        if failed is not None and not isinstance(failed, Exception):
            stop_stages()  # cancelled: nothing may outlive the run
        for last in (partial(self._sum_up, failed), partial(self._end, failed)):
            try:
                last()
            except Exception as second:
                if failed is None:
                    raise
                # Such as a full disk, which is why the run failed: the cause must not be hidden.
                get_run_logger().warning("cannot record the end of the run: %s", second)
        if failed is not None and failed is not error:
            raise failed

    def _end(self, failed: BaseException | None) -> None:
        if failed is None:
            mlflow_runs.end_run(self.mlflow_run_id, "FINISHED")
        else:
            mlflow_runs.end_run_after(self.mlflow_run_id, failed)

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

    def _identified(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "stage": self.only,
            "flow_run_id": self.tags["prefect_flow_run"],
            "mlflow_url": run_link(self.mlflow_run_id),
            "prefect_url": self.tags["prefect_url"],
        }

    def _sum_up(self, failed: BaseException | None) -> None:
        seconds = time.monotonic() - self._started
        summary = self._identified() | {
            "state": "failed" if failed else "completed",
            "error": (str(failed) or type(failed).__name__) if failed else None,
            "seconds": round(seconds, 2),
            "stages": self.described(),
        }
        write_ended(summary)
        headline = {
            f"{name}.{key}": value
            for name, r in self.results.items()
            for key, value in r.metrics.items()
        }
        mlflow_runs.log_metrics(self.mlflow_run_id, {**headline, "seconds": seconds})
        lines = ["| stage | status | seconds |", "|---|---|---|"]
        lines += [f"| {n} | {r.status} | {r.seconds:.1f} |" for n, r in self.results.items()]
        create_markdown_artifact(key="stages", markdown="\n".join(lines))
