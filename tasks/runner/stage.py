"""A stage, as its own file describes it: by the signature of ``run`` and by the constant ``STAGE``.

def run(context: StageContext[MapperConfig], targets: TextTargets, adapters: TrainedAdapters)
    -> TrainedMapper

says which configuration the stage has, which artifacts it needs and which kind it makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from data.artifacts import Artifact
from tasks.config.base import Config
from tasks.runner.context import StageContext


class StageError(TypeError):
    """A stage's file does not describe a stage."""


class NothingKeptError(RuntimeError):
    """A stage kept nothing of what it was given; says why, with counts."""


def no_splits(_: Config) -> Collection[str]:
    """A stage that takes what there is."""
    return ()


@dataclass(frozen=True)
class StageDeclaration:
    """What the signature of a stage's ``run`` does not say.

    Attributes:
        version: to be raised when the stage's code changes what comes out: artifacts of the old
            version are then no longer reused. ``tests/tasks/runner/test_versions.py`` asks.
        description: of its deployment, for people.
        headlines: the metrics that a glance should show.
        parts: the frozen parts whose weights bear on its result.
        model: the name under which its weights are registered in MLflow.
        data_parallel: whether ``runtime.workers`` processes can run it together.
        identify: what else bears on the result, such as the contents of the files that a
            configuration names; goes into the fingerprint.
        begins_with: an earlier configuration whose artifact this one can begin with, or None.
        splits: those of the pairs that it reads with a configuration.
        check: looks at a configuration before a run, and at the splits that later stages read
            (split -> their names); raises what is wrong.
    """

    version: int
    description: str
    headlines: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    model: str | None = None
    data_parallel: bool = False
    identify: Callable[[Any], dict[str, Any]] | None = None
    begins_with: Callable[[Any], Config | None] | None = None
    splits: Callable[[Any], Collection[str]] = no_splits
    check: Callable[[Any, Mapping[str, Collection[str]]], None] | None = None

    @property
    def whole_parts(self) -> tuple[str, ...]:
        """The parts as a recipe has them: the text encoder is one of the generator's."""
        return tuple("generator" if part == "text_encoder" else part for part in self.parts)

    @property
    def computes(self) -> bool:
        """Whether it trains or uses frozen parts, and so is worth a process of its own."""
        return self.data_parallel or bool(self.parts)


@dataclass(frozen=True)
class Stage:
    """A node of the DAG.

    Attributes:
        config: the class of its configuration. needs: the kinds of its inputs, by parameter.
        makes: the kind of its result.
    """

    name: str
    run: Callable[..., Artifact]
    declared: StageDeclaration
    config: type[Config]
    needs: Mapping[str, type[Artifact]]
    makes: type[Artifact]

    @classmethod
    def of(cls, name: str, run: Callable[..., Artifact], declared: StageDeclaration) -> Stage:
        """Read a stage from the signature of its function.

        Raises:
            StageError: a parameter or the result is no artifact, or there is no typed context.
        """
        hints = get_type_hints(run)
        makes = hints.pop("return", None)
        kinds = [hints.pop(parameter, None) for parameter in inspect.signature(run).parameters]
        context, *inputs = kinds or [None]
        if get_origin(context) is not StageContext:
            raise StageError(f"the first parameter of {name}.run must be a StageContext[...]")
        for kind in (makes, *inputs):
            if not (isinstance(kind, type) and issubclass(kind, Artifact)):
                raise StageError(f"{name}.run takes and returns artifacts, not {kind}")
        needs = dict(zip(list(inspect.signature(run).parameters)[1:], inputs, strict=True))
        return cls(name, run, declared, get_args(context)[0], needs, makes)


@dataclass(frozen=True)
class StageCall:
    """A stage with all that it is called with."""

    stage: Stage
    context: StageContext[Any]
    inputs: Mapping[str, Artifact] = field(default_factory=dict)

    def __call__(self) -> Artifact:
        """Run it in this process."""
        return self.stage.run(self.context, **self.inputs)
