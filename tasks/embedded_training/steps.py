"""The steps by name; each goes on from its checkpoint when it is started again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.embedded_training.autoencoder import train_autoencoder, train_decoder
from tasks.embedded_training.common import FOLDER, SHIPPED
from tasks.embedded_training.generator import IMAGES, train_generator
from tasks.embedded_training.heads import train_heads
from tasks.embedded_training.parser import train_parser
from tasks.embedded_training.reader import train_reader
from tasks.embedded_training.shipping import ship

STEPS: dict[str, Callable[..., dict[str, float]]] = {
    "autoencoder": train_autoencoder,
    "decoder": train_decoder,
    "parser": train_parser,
    "reader": train_reader,
    "generator": train_generator,
    "heads": train_heads,
    "ship": ship,
}


def run_step(
    name: str, folder: Path = FOLDER, images: int = IMAGES, resume_from_shipped: bool = False
) -> dict[str, float]:
    """Run one step.

    Args:
        folder: where checkpoints lie.
        images: where ``generator`` ends.
        resume_from_shipped: begin ``generator`` with the shipped weights and a new optimizer.
    """
    settings: dict[str, Any] = {}
    if name == "generator":
        settings = {"images": images, "shipped": SHIPPED if resume_from_shipped else None}
    return STEPS[name](folder, **settings)
