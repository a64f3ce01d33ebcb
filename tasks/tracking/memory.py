"""Memory of a stage: its peak, and giving it back."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from ctypes.util import find_library
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def release_memory() -> None:
    """Give back what a stage no longer needs, to the system too.

    The C library keeps freed memory for itself; without the trim a pipeline's process stays as
    large as the sum of its stages (7 GB on the embedded recipe).
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (libc := find_library("c")):
        trim = getattr(ctypes.CDLL(libc), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Sample the resident memory of this process and of those it started.

    The dictionary holds ``peak_memory_bytes`` after.
    """
    import psutil

    process, found, stop = psutil.Process(), {"peak_memory_bytes": 0.0}, threading.Event()

    def look() -> None:
        held = 0.0
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                held += member.memory_info().rss
        found["peak_memory_bytes"] = max(found["peak_memory_bytes"], held)

    def sample() -> None:
        while not stop.wait(0.5):
            look()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        look()
