"""Stages wired to one another, and the artifacts that a configuration makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from data.artifacts import Artifact
from tasks.config.base import Config
from tasks.config.data import ShardedConfig
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.runner.context import StageContext
from tasks.runner.fingerprint import stage_fingerprint
from tasks.runner.registry import stage_of
from tasks.runner.stage import Stage
from tasks.runner.store import store_folder

Inputs = ParamSpec("Inputs")
Made = TypeVar("Made", bound=Artifact)


@dataclass
class Dag:
    """Stages and what each is wired to: a call adds one.

    ``features = dag(clip_features.run, images)`` is checked by the type checker as a call of the
    stage would be, and again here. What it returns stands for an artifact that is not made yet.

    Attributes:
        makers: for each stage the stages that make its inputs, by parameter; in the order of calls.
    """

    makers: dict[str, dict[str, str]] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)

    def __call__(
        self,
        run: Callable[Concatenate[StageContext[Any], Inputs], Made],
        *inputs: Inputs.args,
        **named: Inputs.kwargs,
    ) -> Made:
        """Add a stage behind those that make its inputs.

        Raises:
            TypeError: an input is missing or of another kind than the stage needs.
        """
        stage = stage_of(run)
        given = inspect.signature(run).bind(None, *inputs, **named).arguments
        for parameter, kind in stage.needs.items():
            if not isinstance(given[parameter], kind):
                raise TypeError(
                    f"{stage.name} needs {kind.__name__} as {parameter!r}, not "
                    f"{type(given[parameter]).__name__}"
                )
        self.makers[stage.name] = {name: given[name].stage for name in stage.needs}
        self.stages[stage.name] = stage
        made: Made = stage.makes(stage.name, "", Path())  # type: ignore[assignment]
        return made

    def ancestors(self, name: str) -> set[str]:
        """Every stage that a stage needs, directly or not."""
        found: set[str] = set()
        for maker in self.makers[name].values():
            found |= {maker} | self.ancestors(maker)
        return found

    def wanted(self, only: str | None) -> set[str] | None:
        """A stage and all that it needs; None for every stage.

        Raises:
            ValueError: it is none of the stages.
        """
        if only is None:
            return None
        if only not in self.stages:
            raise ValueError(
                f"this schedule has no stage {only!r}; its stages are {', '.join(self.stages)}. "
                "Set the override 'schedule', or run another stage"
            )
        return {only} | self.ancestors(only)


class PipelineSettings(Protocol):
    """A configuration of a pipeline: besides these, a field for each stage, of the same name."""

    @property
    def parts(self) -> PartsConfig:
        """The frozen parts."""

    @property
    def runtime(self) -> RuntimeConfig:
        """Where and how stages run."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its configuration and inputs, and the artifact that it makes of them.

    Attributes:
        number: its place in the DAG, from 1 on.
        artifact: in the store under its fingerprint; it may not be there yet.
    """

    stage: Stage
    number: int
    config: Config
    parts: PartsConfig
    runtime: RuntimeConfig
    inputs: Mapping[str, Artifact]
    artifact: Artifact


def plan(
    dag: Dag, settings: PipelineSettings, wanted: Collection[str] | None = None
) -> dict[str, PlannedStage]:
    """What a configuration makes of a DAG or of the stages that are wanted, by stage, in order."""
    planned: dict[str, PlannedStage] = {}
    for number, (name, stage) in enumerate(dag.stages.items(), 1):
        if wanted is not None and name not in wanted:
            continue
        config = config_of(stage, settings)
        inputs = {
            parameter: planned[maker].artifact for parameter, maker in dag.makers[name].items()
        }
        fingerprints = {parameter: artifact.fingerprint for parameter, artifact in inputs.items()}
        fingerprint = stage_fingerprint(stage, config, settings.parts, fingerprints)
        artifact = stage.makes(name, fingerprint, store_folder() / name / fingerprint)
        planned[name] = PlannedStage(
            stage, number, config, settings.parts, settings.runtime, inputs, artifact
        )
    return planned


def identity_of(planned: PlannedStage) -> str:
    """Hash of all that bears on what a stage makes, or on its shards, but its inputs."""
    config = planned.config
    if isinstance(config, ShardedConfig):
        config = config.of_shards()
    return stage_fingerprint(planned.stage, config, planned.parts, {})


def config_of(stage: Stage, settings: PipelineSettings) -> Config:
    """A stage's part of a pipeline's configuration; its defaults where that has none.

    Raises:
        TypeError: the part is of another class than the stage's signature says.
    """
    config = getattr(settings, stage.name, None)
    if config is None:
        return stage.config()
    if not isinstance(config, stage.config):
        raise TypeError(f"{stage.name} takes a {stage.config.__name__}, not {type(config)}")
    return config
