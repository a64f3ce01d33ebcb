"""The downloader: a list of addresses into image shards, on as many processes as there are cores.

A killed worker is replaced and its shards are done again; a killed ``fill`` goes on at the shards
that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data.download.plan import Plan, jobs
from data.download.settings import FetchSettings
from data.download.worker_pool import WorkerPool
from data.sources.base import Source


def fill(
    source: Source,
    settings: FetchSettings,
    plan: Plan,
    names: Sequence[str] | None = None,
    done: Callable[[dict[str, Any]], None] = lambda stats: None,
) -> None:
    """Fetch what is missing of some shards, or of all, with all passes.

    Args:
        done: called with the statistics of each shard as it is finished, from several threads.

    Raises:
        WriteError: there is no room. WorkerError: a shard kills its workers again and again.
        SystematicFaultError: unexpected exceptions at so many addresses that it is not theirs.
    """
    chosen = None if names is None else set(names)
    for passes in range(len(settings.retries) + 1):
        todo = [n for n in plan.unfinished(passes) if chosen is None or n in chosen]
        if not todo:
            continue
        if passes == 0:
            work = jobs(source, plan, todo)
        else:
            mode = settings.retries[passes - 1]
            work = iter({"name": n, "passes": passes, "mode": mode} for n in todo)
        WorkerPool(settings, work, done).run()
