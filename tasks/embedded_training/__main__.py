"""Runs one step; each goes on from its checkpoint when it is started again.

``autoencoder``, ``parser``, ``reader`` and ``heads`` take minutes, ``generator`` hours to days;
``ship`` writes what is committed.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from tasks.embedded_training.common import FOLDER, logger
from tasks.embedded_training.generator import IMAGES
from tasks.embedded_training.steps import STEPS, run_step


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m tasks.embedded_training", description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--images", type=int, default=IMAGES, help="where `generator` ends")
    parser.add_argument(
        "--resume-from-shipped",
        action="store_true",
        help="begin `generator` with the shipped weights and a new optimizer",
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found = run_step(given.step, given.folder, given.images, given.resume_from_shipped)
    logger.info("%s: %s", given.step, found)


if __name__ == "__main__":
    main()
