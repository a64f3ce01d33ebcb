"""Makes the embedded recipe's backbones from scratch: ``python -m flows.backbones``.

Users need not: the results are committed under ``data/embedded/weights``. Every step resumes.
"""

from __future__ import annotations

import argparse
import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

STEPS = ("train_heads", "train_autoencoder", "train_denoiser", "ship_generator")


@task(cache_policy=NO_CACHE, persist_result=False)
def step(name: str) -> dict[str, float]:
    """Run one function of ``tasks.training.embedded_backbones`` and print what it reports."""
    from tasks.training import embedded_backbones as work

    found: dict[str, float] = getattr(work, name)()
    print(name, found)
    return found


@flow(name="backbones", log_prints=True, persist_result=False)
def backbones(steps: tuple[str, ...] = STEPS) -> None:
    """Projection heads, then autoencoder, then denoiser, then the shipped files."""
    for name in steps:
        if name not in STEPS:
            raise ValueError(f"unknown step {name!r}; steps: {', '.join(STEPS)}")
        step.with_options(name=name, task_run_name=name)(name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m flows.backbones", description=__doc__)
    parser.add_argument("steps", nargs="*", default=STEPS, help=", ".join(STEPS))
    backbones(tuple(parser.parse_args().steps))
