"""Memory of a stage: its peak, and giving it back."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes.util import find_library

HOST, GPU = "peak_memory_bytes", "peak_gpu_memory_bytes"


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

    The dictionary holds ``peak_memory_bytes`` after, and ``peak_gpu_memory_bytes`` where this
    process used a GPU; one that it started reads its own.
    """
    import psutil

    peak_gpu_memory(anew=True)

    process, found, stop = psutil.Process(), {HOST: 0.0}, threading.Event()

    def look() -> None:
        held = 0.0
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                held += member.memory_info().rss
        found[HOST] = max(found[HOST], held)

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
        if held := peak_gpu_memory():
            found[GPU] = held


def peak_gpu_memory(anew: bool = False) -> float:
    """The most bytes that PyTorch has held on one of the GPUs for this process; 0 without one.

    Args:
        anew: count from now on.
    """
    torch = sys.modules.get("torch")  # who has not imported it has used no GPU
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    devices = range(torch.cuda.device_count())
    most = max((torch.cuda.max_memory_reserved(device) for device in devices), default=0)
    if anew:
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
    return float(most)
