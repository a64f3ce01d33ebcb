"""The whole DAG on one screen.

python -m flows.pipeline --recipe tiny                 run it here, without a deployment
prefect deployment run gill/full-pipeline --watch      run it on a worker
prefect deployment run gill/mapper --watch             run one stage on what is there
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow

from flows.local.temporary import interruptible, reachable_server
from flows.names import RECIPE_NAMES, RecipeName
from flows.recipes import resolve
from tasks.runner.checks import check_before
from tasks.runner.dag import Dag
from tasks.runner.names import stage_names
from tasks.runner.pipeline_run import PipelineRun
from tasks.runner.registry import stage_named
from tasks.stages import (
    adapters,
    clip_features,
    decision,
    download,
    evaluate,
    imported,
    index,
    joint,
    mapper,
    text_targets,
)


def dag(schedule: str) -> Dag:
    """The stages and what each takes: the type checker holds these calls to their signatures."""
    run = Dag()
    images = run(download.run)
    features = run(clip_features.run, images)
    targets = run(text_targets.run, images)
    if schedule == "staged":
        trained = run(adapters.run, images, features)
        mapped = run(mapper.run, targets, trained)
    elif schedule == "joint":
        trained = mapped = run(joint.run, images, features, targets)
    else:
        trained = mapped = run(imported.run, images, features, targets)
    found = run(index.run, features, trained)
    decided = run(decision.run, images, features, trained, mapped, found)
    run(evaluate.run, images, features, targets, trained, mapped, found, decided)
    return run


if TYPE_CHECKING:
    StageName = str
else:  # Prefect makes the menus of its run form from this
    StageName = Literal[stage_names()]


@flow(name="gill", persist_result=False)
def gill(
    recipe: RecipeName = "embedded",
    overrides: dict[str, Any] | None = None,
    stage: StageName | None = None,
    force: list[StageName] | bool = False,
) -> dict[str, Any]:
    """Make every artifact of GILL that is not there yet, and return what each stage reported.

    Args:
        recipe: embedded, tiny or opt-6.7b.
        overrides: flat, such as {"mapper.learning_rate": 5e-4}.
        stage: run this stage alone, on artifacts that are there.
        force: stages to make again although their artifact is there; true means those that run.
    """
    config = resolve(recipe, overrides or {})
    stages = dag(config.schedule)
    if isinstance(force, bool):
        force = ([stage_named(stage).name] if stage else list(stages.stages)) if force else []
    run = PipelineRun(recipe, config, stages, only=stage, force=force)
    check_before(run.planned, stage, run.force)
    with run:
        run.submit()
    return run.described()


def main() -> None:
    """Run the flow in this process."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=gill.__doc__)
    parser.add_argument("--recipe", default="tiny", choices=RECIPE_NAMES)
    parser.add_argument("--stage", default=None, help=f"one of {', '.join(stage_names())}")
    parser.add_argument("--overrides", type=json.loads, default={}, help='JSON: {"key": value}')
    parser.add_argument(
        "--force", nargs="*", default=False, metavar="STAGE", help="these; without any, what runs"
    )
    given = parser.parse_args()
    force = True if given.force == [] else given.force  # a bare --force
    with interruptible(), reachable_server():
        gill(recipe=given.recipe, overrides=given.overrides, stage=given.stage, force=force)


if __name__ == "__main__":
    main()
