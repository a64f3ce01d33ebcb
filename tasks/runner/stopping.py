"""Ends the stages of a run that is cancelled, wherever they run.

A stage in processes of its own loses those. One in a thread of this process gets an exception
there, as soon as it comes back from what it computes. Either is as safe as a kill, for which stages
are made: finished shards and checkpoints are kept.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.runner import launcher

_lock = threading.Lock()
_threads: set[int] = set()


class StageStopped(BaseException):
    """A stage was ended because its run was cancelled."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, ``stop_stages`` of another thread ends it with ``StageStopped``."""
    ident = threading.get_ident()
    with _lock:
        _threads.add(ident)
    try:
        yield
    finally:
        with _lock:
            _threads.discard(ident)


def stop_stages() -> None:
    """End every stage that runs in this process or in processes of its own."""
    with _lock:
        for ident in _threads:
            if ident != threading.get_ident():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(ident), ctypes.py_object(StageStopped)
                )
    launcher.stop_all()
