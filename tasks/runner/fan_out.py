"""Runs batches of shards as Prefect tasks, in a thread of this process or on Ray.

Beside ``pipeline_run`` the only place that knows Prefect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data.artifacts import Artifact, ImageShards
from data.shards import rows_of
from tasks.config.data import ShardedConfig
from tasks.runner.context import StageContext
from tasks.runner.registry import stage_named
from tasks.runner.stage import StageCall
from tasks.tracking.stage_log import ConsoleLog

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

_POLL_SECONDS = 2.0


def fan_out(
    name: str,
    work: Callable[..., None],
    shards: Sequence[str],
    shared: ShardedConfig,
    **given: Any,
) -> None:
    """Call ``work(names=batch, **given)`` for each batch of ``shared.shards_per_task`` shards.

    With ``threads`` one batch after the other, each of which uses the cores by itself; with ``ray``
    one on each Ray worker. Outside of a flow (tests, scripts) the batches run here and now.

    Raises:
        RuntimeError: a runner is wanted that is not installed.
        Exception: what a batch raised, once the others have ended.
    """
    # Imported here, since the processes of the other stages import this module too.
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext
    from prefect.futures import wait

    size = shared.shards_per_task
    batches = [list(shards[i : i + size]) for i in range(0, len(shards), size)]
    if FlowRunContext.get() is None and shared.runner == "threads":
        for batch in batches:
            work(names=batch, **given)
        return
    one = task(name=name, cache_policy=NO_CACHE, persist_result=False)(work)

    @flow(name=f"{name}-shards", task_runner=_runner(shared), persist_result=False)
    def share_out() -> None:
        with _resources(shared):
            futures = [
                one.with_options(task_run_name=f"{name}-{batch[0]}").submit(names=batch, **given)
                for batch in batches
            ]
        wait(futures)
        for future in futures:
            future.result()

    share_out()


def convert_on_workers(
    call: StageCall, shared: ShardedConfig, images: ImageShards, folder: str
) -> None:
    """Have workers make the shards of a stage that converts image shards one by one.

    They write into the stage's folder, which all machines must see at the same path. Shards that
    are there are not made again.

    Args:
        folder: of the shards; folders beside it may hold others of the same names.
    """
    context, name = call.context, call.stage.name
    rows = {name: rows_of(images.folder / name) for name in images.names()}

    def missing() -> list[str]:
        there = {path.name for path in (context.out / folder).glob("*.parquet")}
        return [name for name in rows if name not in there]

    todo = missing()
    if not todo:
        return
    total, resumed = sum(rows.values()), sum(n for name, n in rows.items() if name not in todo)
    began = time.monotonic()

    def report() -> None:
        done = total - sum(rows[name] for name in missing())
        speed = (done - resumed) / max(1e-9, time.monotonic() - began)
        context.log.metrics({"rows_per_second": speed, "rows_done": done}, done)
        context.log.progress(done, total, "rows", resumed)

    given = replace(context, log=ConsoleLog())
    with reporting(report):
        fan_out(
            name, convert_batch, todo, shared, stage=name, context=given, inputs=dict(call.inputs)
        )


def convert_batch(
    names: Sequence[str], stage: str, context: StageContext[Any], inputs: Mapping[str, Artifact]
) -> None:
    """Make some shards of a stage: what one task does, here or on another machine."""
    StageCall(stage_named(stage), replace(context, shards=tuple(names)), inputs)()


@contextmanager
def reporting(report: Callable[[], None]) -> Iterator[None]:
    """Call ``report`` every two seconds until the block ends, and once more then."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            report()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        report()


def _runner(shared: ShardedConfig) -> TaskRunner[Any]:
    from prefect.task_runners import ThreadPoolTaskRunner

    if shared.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=1)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise RuntimeError(
            "the runner is 'ray' and prefect-ray is not installed: pip install -e '.[ray]', or use "
            "the runner 'threads'"
        ) from error
    return RayTaskRunner(address=shared.ray_address or None)


def _resources(shared: ShardedConfig) -> AbstractContextManager[Any]:
    """What Ray is to set aside for each batch."""
    if shared.runner == "threads" or not shared.gpus_per_task:
        return nullcontext()
    from prefect_ray.context import remote_options

    return remote_options(num_gpus=shared.gpus_per_task)
