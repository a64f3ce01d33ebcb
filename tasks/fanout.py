"""Runs batches of shards as Prefect tasks, in a thread of this process or on Ray.

Beside ``tasks/stage.py`` the only place that knows Prefect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner


def fan_out(
    name: str,
    work: Callable[..., None],
    batches: Sequence[Sequence[str]],
    runner: str,
    ray_address: str = "",
    **given: Any,
) -> None:
    """Call ``work(names=batch, **given)`` for each batch.

    With ``threads`` one batch after the other, each of which uses the cores by itself; with ``ray``
    one on each Ray worker. Outside of a flow (tests, scripts) the batches run here and now.

    Raises:
        RuntimeError: a runner is wanted that is not installed.
        Whatever a batch raises, once the others have ended.
    """
    # Imported here, since the processes of the other stages import this module too.
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext
    from prefect.futures import wait

    if FlowRunContext.get() is None and runner == "threads":
        for batch in batches:
            work(names=batch, **given)
        return
    one = task(name=name, cache_policy=NO_CACHE, persist_result=False)(work)

    @flow(name=f"{name}-shards", task_runner=_runner(runner, ray_address), persist_result=False)
    def shards() -> None:
        futures = [
            one.with_options(task_run_name=f"{name}-{batch[0]}").submit(names=list(batch), **given)
            for batch in batches
        ]
        wait(futures)
        for future in futures:
            future.result()

    shards()


def _runner(kind: str, ray_address: str) -> TaskRunner[Any]:
    from prefect.task_runners import ThreadPoolTaskRunner

    if kind == "threads":
        return ThreadPoolTaskRunner(max_workers=1)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise RuntimeError(
            "the runner is 'ray' and prefect-ray is not installed: pip install '.[ray]', or use "
            "the runner 'threads'"
        ) from error
    return RayTaskRunner(address=ray_address or None)
