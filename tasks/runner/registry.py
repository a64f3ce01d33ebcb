"""What stages there are: the files in ``tasks/stages``, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache

from data.artifacts import Artifact
from tasks.runner.names import check_stage
from tasks.runner.stage import Stage


@cache
def stage_named(name: str) -> Stage:
    """Import a stage.

    Raises:
        ValueError: there is none; names the nearest.
        StageError: its file does not describe a stage.
    """
    check_stage(name)
    module = importlib.import_module(f"tasks.stages.{name}")
    return Stage.of(name, module.run, module.STAGE)


def stage_of(run: Callable[..., Artifact]) -> Stage:
    """The stage of a function ``run``."""
    return stage_named(run.__module__.rpartition(".")[2])
