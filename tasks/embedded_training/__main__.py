"""Runs one step: ``autoencoder``, ``parser``, ``generator``; each goes on from its checkpoint."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from tasks.embedded_training.autoencoder import train_autoencoder
from tasks.embedded_training.common import FOLDER, logger
from tasks.embedded_training.generator import train_generator
from tasks.embedded_training.parser import train_parser
from tasks.embedded_training.reader import train_reader

STEPS = {
    "autoencoder": train_autoencoder,
    "parser": train_parser,
    "generator": train_generator,
    "reader": train_reader,
}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m tasks.embedded_training", description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    logger.info("%s: %s", arguments.step, STEPS[arguments.step](arguments.folder))


if __name__ == "__main__":
    main()
