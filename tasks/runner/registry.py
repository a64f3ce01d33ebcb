"""What stages there are: the files in ``tasks/stages``, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from data.artifacts import Artifact
from tasks.runner.stage import Stage

_FOLDER = Path(__file__).parents[1] / "stages"


def stage_names() -> tuple[str, ...]:
    """Names of all stages in alphabetical order; nothing is imported for them."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("[!_]*.py")))


@cache
def stage_named(name: str) -> Stage:
    """Import a stage.

    Raises:
        ValueError: there is none; names the nearest.
        StageError: its file does not describe a stage.
    """
    if name not in stage_names():
        near = get_close_matches(name, stage_names(), n=1, cutoff=0.0)
        raise ValueError(
            f"unknown stage {name!r}; did you mean {near[0]!r}? Stages: {', '.join(stage_names())}"
        )
    module = importlib.import_module(f"tasks.stages.{name}")
    return Stage.of(name, module.run, module.STAGE)


def stage_of(run: Callable[..., Artifact]) -> Stage:
    """The stage of a function ``run``."""
    return stage_named(run.__module__.rpartition(".")[2])
