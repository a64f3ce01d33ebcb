"""A stage's runs in MLflow: what it was given, and the models that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.runner.dag import PlannedStage
from tasks.tracking import mlflow_runs


@dataclass(frozen=True)
class StageRecord:
    """Begins a stage's MLflow runs and registers what it made.

    Attributes:
        parent: the pipeline's run. tags: of every run.
    """

    planned: PlannedStage
    parent: str | None
    tags: Mapping[str, str] = field(default_factory=dict)

    def begin(self, tags: Mapping[str, str]) -> str:
        """Start a run with the stage's configuration and inputs; returns its id."""
        planned = self.planned
        name, fingerprint = planned.stage.name, planned.artifact.fingerprint
        run_id = mlflow_runs.start_run(
            f"{planned.number}-{name}",
            {**self.tags, **tags, "stage": name, "fingerprint": fingerprint},
            self.parent,
        )
        mlflow_runs.log_params(run_id, planned.config.model_dump(mode="json"))
        for part in planned.stage.declared.whole_parts:
            mlflow_runs.log_params(run_id, {part: getattr(planned.parts, part).model_dump()})
        # An artifact that stands for two inputs is shown once.
        given = {(a.stage, a.fingerprint): a for a in planned.inputs.values()}
        mlflow_runs.log_artifacts_as_datasets(run_id, list(given.values()), "input")
        return run_id

    def register(self, run_id: str, unless_registered: bool = False) -> None:
        """Register the artifact's weights, where the stage has a name for them."""
        name, artifact = self.planned.stage.declared.model, self.planned.artifact
        if name is None:
            return
        if unless_registered and mlflow_runs.is_registered(name, artifact.fingerprint):
            return
        tags = {"fingerprint": artifact.fingerprint}
        version = mlflow_runs.register_model(name, artifact.path, run_id, tags)
        mlflow_runs.set_tags(run_id, {"model_version": f"{name}/{version}"})
