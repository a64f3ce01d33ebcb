"""Looks at a run before it begins, and before any server is started for it."""

from __future__ import annotations

from flows.config import PipelineConfig
from flows.pipeline import dag
from tasks.parts.trial import try_parts_apart
from tasks.runner.checks import check_before
from tasks.runner.dag import plan
from tasks.runner.planning import check_room_to_make, explain


def check_run(config: PipelineConfig, stage: str | None, force: bool) -> None:
    """Refuse a run that cannot end well; see ``tasks.runner.checks``.

    Args:
        stage: the one that runs alone, or None. force: whether it is made again.

    Raises:
        ValueError, OSError: says what is missing and what to do.
    """
    stages = dag(config.schedule)
    planned = plan(stages, config, stages.wanted(stage))
    forced = [stage] if stage else list(planned)
    parts = check_before(planned, stage, forced if force else ())
    to_make = [made for made in explain(planned, force) if stage in (None, made.stage)]
    check_room_to_make(to_make)
    try_parts_apart(config.parts, config.runtime, parts)
