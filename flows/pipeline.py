"""The whole DAG on one screen.

python -m flows.pipeline --recipe tiny                 run it here, without a deployment
prefect deployment run gill/full-pipeline --watch      run it on a worker
prefect deployment run gill/mapper --watch             run one stage on what is there
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from flows.names import RECIPE_NAMES, RecipeName
from flows.recipes import resolve
from tasks.runner.pipeline_run import PipelineRun
from tasks.runner.registry import STAGES, stage_named

if TYPE_CHECKING:
    StageName = str
else:  # Prefect makes the menus of its run form from this
    StageName = Literal[tuple(STAGES)]


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
    if isinstance(force, bool):
        force = ([stage_named(stage).name] if stage else list(STAGES)) if force else []
    with PipelineRun(recipe, config, only=stage, force=force) as run:
        images = run("download")
        features = run("clip_features", images)
        targets = run("text_targets", images)
        if config.schedule == "joint":
            adapters = mapper = run("joint", images, features, targets)
        else:
            adapters = run("adapters", images, features)
            mapper = run("mapper", targets, adapters)
        index = run("index", features, adapters)
        decision = run("decision", images, features, adapters, mapper, index)
        run("evaluate", images, features, targets, adapters, mapper, index, decision)
    return run.described()


def main() -> None:
    """Run the flow in this process."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=gill.__doc__)
    parser.add_argument("--recipe", default="tiny", choices=RECIPE_NAMES)
    parser.add_argument("--stage", default=None, help=f"one of {', '.join(STAGES)}")
    parser.add_argument("--overrides", type=json.loads, default={}, help='JSON: {"key": value}')
    parser.add_argument(
        "--force", nargs="*", default=False, metavar="STAGE", help="these; without any, what runs"
    )
    given = parser.parse_args()
    force = True if given.force == [] else given.force  # a bare --force
    with reachable_server():
        gill(recipe=given.recipe, overrides=given.overrides, stage=given.stage, force=force)


@contextmanager
def reachable_server() -> Iterator[None]:
    """Use the configured Prefect server if it answers, else a temporary one for this process."""
    address = get_current_settings().api.url or ""
    try:
        answered = bool(address) and httpx.get(f"{address}/health", timeout=3).is_success
    except httpx.HTTPError:
        answered = False
    if answered:
        yield
        return
    print(f"no Prefect server at {address or 'any address'}; this run has a temporary one")
    temporary = {
        PREFECT_API_URL: None,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
    }
    # Without it the default action ends this process and leaves the server to itself.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with temporary_settings(temporary):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
