"""Sweeps of the paper: the kind of mapper and the number of [IMG] tokens, over several seeds.

python -m flows.ablation --recipe tiny --kinds gill linear --tokens 1 2 --seeds 2

Every point is a run of the pipeline, so stages that a setting does not touch are reused, and a
sweep that was stopped goes on where it was. The table and the plots go to MLflow and to
``var/ablation``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from prefect import flow

from flows.local.temporary import interruptible, reachable_server
from flows.names import RECIPE_NAMES, RecipeName
from flows.overrides import ConfigError
from flows.pipeline import gill
from flows.recipes import resolve

KINDS = ("gill", "linear", "mlp", "encoder")
TOKENS = (1, 2, 4, 8)
# The sweeps look at images, of captions and of long contexts: on captions like those that they were
# trained on, the paper's kinds of mapper are level. The evaluation also needs some decision model:
# the cheapest.
SUITES = ("generation", "synthetic_contexts", "vist", "visdial")
CHEAP = {
    "mapper.baselines": (),
    "decision.train_prompts": 48,
    "decision.validation_prompts": 24,
    "decision.votes": 3,
    "decision.margin": 0.0,
    "decision.steps": 50,
}


@flow(name="ablation", persist_result=False)
def ablation(
    recipe: RecipeName = "embedded",
    kinds: Sequence[str] = KINDS,
    tokens: Sequence[int] = TOKENS,
    seeds: int = 3,
    adapters_too: bool = False,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Run both sweeps and compare.

    Args:
        recipe: embedded, tiny or opt-6.7b.
        kinds: of mapper, with the recipe's number of [IMG] tokens.
        tokens: numbers of [IMG] tokens, with the recipe's kind of mapper.
        seeds: of the mapper and of the generated images.
        adapters_too: give the adapters the seed as well, which trains them for each seed.
        overrides: flat, for every run.
    """
    from data.artifacts import Artifact
    from tasks.evaluation import sweep
    from tasks.runner.pipeline_run import mark_process
    from tasks.runner.store import store_folder

    given = overrides or {}
    suites = [s for s in resolve(recipe, given).evaluate.suites if s in SUITES]
    base = {**CHEAP, "evaluate.suites": suites, **given}
    mark_process()
    config = resolve(recipe, base)  # refuse wrong keys before the first run
    sweeps: list[tuple[str, str | int]] = [("mapper.kind", value) for value in kinds]
    sweeps += [("adapters.num_img_tokens", value) for value in tokens]
    if seeds < 1 or not sweeps:
        raise ConfigError(f"{seeds} seeds of {len(sweeps)} points; there must be one of each")
    for key, value in sweeps:
        resolve(recipe, {**base, key: value})  # refuse a wrong point before the first run
    points = []
    for key, value in sweeps:
        runs, ids, evaluated = [], [], []
        for seed in range(seeds):
            stages = gill(recipe, {**base, key: value, **_seeds(recipe, base, seed, adapters_too)})
            runs.append(sweep.headline({n: s["metrics"] for n, s in stages.items()}))
            ids.append(stages["evaluate"]["mlflow_run_id"])
            fingerprint = stages["evaluate"]["fingerprint"]
            evaluated.append(
                Artifact("evaluate", fingerprint, store_folder() / "evaluate" / fingerprint)
            )
        own = value in (config.mapper.kind, config.adapters.num_img_tokens)
        similar = sweep.similarities(evaluated)
        points.append(sweep.Point(key, value, runs, ids, similar, own))
    asked = {"recipe": recipe, "seeds": seeds, "adapters_too": adapters_too, "overrides": base}
    sweep.record(points, asked)
    print(sweep.as_table(points))


def _seeds(
    recipe: RecipeName, base: dict[str, Any], seed: int, adapters_too: bool
) -> dict[str, int]:
    """Seed 0 leaves the recipe's own, so that its artifacts are reused."""
    config = resolve(recipe, base)
    found = {
        "mapper.seed": config.mapper.seed + seed,
        "evaluate.seed": config.evaluate.seed + seed,
    }
    return {**found, "adapters.seed": config.adapters.seed + seed} if adapters_too else found


def main() -> None:
    """Run the sweeps in this process."""
    parser = argparse.ArgumentParser(prog="python -m flows.ablation", description=__doc__)
    parser.add_argument("--recipe", default="tiny", choices=RECIPE_NAMES)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--tokens", nargs="*", type=int, default=TOKENS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--adapters-too", action="store_true")
    parser.add_argument("--overrides", type=json.loads, default={}, help='JSON: {"key": value}')
    given = parser.parse_args()
    with interruptible(), reachable_server():
        ablation(
            given.recipe, given.kinds, given.tokens, given.seeds, given.adapters_too,
            given.overrides,
        )  # fmt: skip


if __name__ == "__main__":
    main()
