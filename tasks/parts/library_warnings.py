"""What libraries warn of while they load a frozen part goes on to the stage's log."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import override

logger = logging.getLogger("gill")
LIBRARIES = ("transformers", "diffusers")  # which keep their loggers to themselves


class _Forward(logging.Handler):
    @override
    def emit(self, record: logging.LogRecord) -> None:
        logger.warning("%s: %s", record.name, record.getMessage())


@contextmanager
def libraries_heard() -> Iterator[None]:
    """Log what Python's warnings and the libraries' loggers say in the block, each once."""
    handler = _Forward(logging.WARNING)
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    for library in loggers:
        library.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as heard:
            yield
    finally:
        for library in loggers:
            library.removeHandler(handler)
        for text in dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in heard):
            logger.warning(text)
