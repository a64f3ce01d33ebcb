"""Runs one step; each goes on from its checkpoint when it is started again.

``autoencoder``, ``parser``, ``reader`` and ``heads`` take minutes, ``generator`` hours to days;
``ship`` writes what is committed.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tasks.embedded_training.autoencoder import train_autoencoder, train_decoder
from tasks.embedded_training.common import FOLDER, SHIPPED, logger
from tasks.embedded_training.generator import train_generator
from tasks.embedded_training.heads import train_heads
from tasks.embedded_training.parser import train_parser
from tasks.embedded_training.reader import train_reader
from tasks.embedded_training.shipping import ship

STEPS: dict[str, Callable[..., dict[str, float]]] = {
    "autoencoder": train_autoencoder,
    "decoder": train_decoder,
    "parser": train_parser,
    "generator": train_generator,
    "reader": train_reader,
    "heads": train_heads,
    "ship": ship,
}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m tasks.embedded_training", description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--images", type=int, default=5_000_000, help="where `generator` ends")
    parser.add_argument(
        "--resume-from-shipped",
        action="store_true",
        help="begin `generator` with the shipped weights and a new optimizer",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    settings: dict[str, Any] = {}
    if arguments.step == "generator":
        shipped = SHIPPED if arguments.resume_from_shipped else None
        settings = {"images": arguments.images, "shipped": shipped}
    found = STEPS[arguments.step](arguments.folder, **settings)
    logger.info("%s: %s", arguments.step, found)


if __name__ == "__main__":
    main()
