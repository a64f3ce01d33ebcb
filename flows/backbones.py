"""Makes the embedded recipe's backbones from scratch: ``python -m flows.backbones``.

Users need not: the results are committed under ``data/embedded/weights``. Every step goes on from
its checkpoint, and each can be run alone: ``python -m tasks.embedded_training generator``.
"""

from __future__ import annotations

import argparse
import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.embedded_training.generator import IMAGES
from tasks.embedded_training.steps import STEPS, run_step


@task(cache_policy=NO_CACHE, persist_result=False)
def step(name: str, images: int) -> dict[str, float]:
    """Run one step of ``tasks.embedded_training`` and print what it reports."""
    found = run_step(name, images=images)
    print(name, found)
    return found


@flow(name="backbones", log_prints=True, persist_result=False)
def backbones(steps: tuple[str, ...] = tuple(STEPS), images: int = IMAGES) -> None:
    """Autoencoder, text layers, reader, generator, heads, then the shipped files."""
    for name in steps:
        if name not in STEPS:
            raise ValueError(f"unknown step {name!r}; steps: {', '.join(STEPS)}")
    for name in steps:
        step.with_options(name=name, task_run_name=name)(name, images)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m flows.backbones", description=__doc__)
    parser.add_argument("steps", nargs="*", default=tuple(STEPS), help=", ".join(STEPS))
    parser.add_argument("--images", type=int, default=IMAGES, help="that the generator sees")
    given = parser.parse_args()
    backbones(tuple(given.steps), given.images)
