"""Work in shards or parts that are written as they are done; finished ones are not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import pyarrow as pa

from data.shards import read_table, rows_of, shard_names, write_shard
from gill.data_parallel import WorkerGroup
from tasks.runner.room import check_room
from tasks.tracking.stage_log import StageLog

CHUNK = 64  # prompts that are worked on and written together

Item = TypeVar("Item")
Made = TypeVar("Made")
Convert = Callable[[Path], pa.Table]


def map_shards(
    log: StageLog,
    source: Path,
    target: Path,
    unit: str,
    convert: Convert | Sequence[Convert],
    shards: Sequence[str] = (),
    workers: WorkerGroup | None = None,
    curve: str = "rows",
) -> dict[str, float]:
    """Write ``convert(shard)`` for each shard of ``source`` under the same name in ``target``.

    A shard that is there is finished: ``tasks.runner.store`` lets a stage begin with nothing else.
    A killed stage therefore goes on at the next one. One shard is written while the next is
    converted. Workers take turns in the shards, and all wait until the last is written.

    Args:
        convert: one function, or one for each device: each takes the next shard when it is free.
        shards: names of those to convert; empty for all.
        curve: how the curves of rate and count are called: a second pass of a stage has its own.

    Returns:
        Rows, rows a second of this process, bytes, and the shards that were already there.
    """
    workers = workers or WorkerGroup()
    converts = [convert] if callable(convert) else list(convert)
    names = list(shards) or shard_names(source)
    rows = {name: rows_of(source / name) for name in names}
    there = {name for name in names if (target / name).exists()}
    todo = [n for n in names[workers.rank :: workers.size] if n not in there]
    total, done = sum(rows.values()), sum(rows[n] for n in names if n not in set(todo))
    resumed, began = done, time.monotonic()
    log.progress(done, total, unit, resumed=resumed)
    for position, name in enumerate(_written(converts, source, target, todo)):
        done += rows[name]
        speed = (done - resumed) / max(1e-9, time.monotonic() - began)
        log.metrics({f"{curve}_per_second": speed, f"{curve}_done": done}, position)
        log.progress(done, total, unit, resumed=resumed)
    workers.barrier()
    return {
        "rows": float(total),
        "rows_per_second": (done - resumed) / max(1e-9, time.monotonic() - began),
        "bytes": float(sum((target / name).stat().st_size for name in names)),
        "shards_resumed": float(len(there)),
    }


def check_room_for_rows(
    source: Path, target: Path, row_bytes: int, what: str, without: Collection[str] = ()
) -> None:
    """See that the disk holds a row for each row of ``source``, before hours go into making them.

    Args:
        target: the folder to fill, which may hold some shards. row_bytes: of what is stored.
        what: of the rows, for the message. without: splits that are left out.

    Raises:
        DiskFullError: it plainly does not; says how much is missing.
    """
    names = [name for name in shard_names(source) if name.rpartition("-")[0] not in set(without)]
    todo = [name for name in names if not (target / name).exists()]
    rows = sum(rows_of(source / name) for name in todo)
    check_room(target, rows * row_bytes, f"{rows:,} {what} of {row_bytes:,} bytes each")


def _written(
    converts: Sequence[Convert], source: Path, target: Path, names: Sequence[str]
) -> Iterator[str]:
    """The shards as they are written; each function takes the next one when it is free.

    No more tables wait to be written than there are functions.
    """

    def write(name: str, table: pa.Table) -> str:
        write_shard(target / name, table)
        return name

    if len(converts) == 1:
        # In this thread, which may have computed before: every thread that computes on the CPU
        # keeps helpers of its own, and they get in each other's way (docs/experiments.md).
        with ThreadPoolExecutor(1, "write") as writer:
            writing: Future[str] | None = None
            for name in names:
                table = converts[0](source / name)
                if writing is not None:
                    yield writing.result()
                writing = writer.submit(write, name, table)
            if writing is not None:
                yield writing.result()
        return
    free: SimpleQueue[Convert] = SimpleQueue()
    for one in converts:
        free.put(one)

    def make(name: str) -> str:
        mine = free.get()
        try:
            table = mine(source / name)
        finally:
            free.put(mine)
        return write(name, table)

    # One thread more than there are devices: it writes while all of them work.
    with ThreadPoolExecutor(len(converts) + 1, "shards") as pool:
        futures = [pool.submit(make, name) for name in names]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass
class ChunkedWork:
    """Work on many prompts in chunks, each written when it is done and not done again.

    Attributes:
        folder: where the chunks lie.
        unit, total: of the progress over all that this is called for.
    """

    log: StageLog
    folder: Path
    unit: str
    total: int
    done: int = 0
    resumed: int = 0

    def __call__(self, name: str, count: int, make: Callable[[slice], pa.Table]) -> pa.Table:
        """``make(rows)`` of all rows up to ``count``, under a name of their own."""
        tables = []
        self.log.progress(self.done, self.total, self.unit, self.resumed)
        for number, start in enumerate(range(0, count, CHUNK)):
            rows = slice(start, min(start + CHUNK, count))
            path = self.folder / f"{name}-{number:05d}.parquet"
            if path.exists():
                self.resumed += rows.stop - start
            else:
                write_shard(path, make(rows))
            self.done += rows.stop - start
            self.log.progress(self.done, self.total, self.unit, self.resumed)
            tables.append(read_table(path))
        return pa.concat_tables(tables)


def ahead(
    pool: Executor, load: Callable[[Item], Made], chunks: Sequence[Sequence[Item]]
) -> Iterator[list[Made]]:
    """``load`` of every item of each chunk, made while the chunk before is used."""
    waiting: list[Future[Made]] = []
    for chunk in chunks:
        following = [pool.submit(load, item) for item in chunk]
        if waiting:
            yield [future.result() for future in waiting]
        waiting = following
    if waiting:
        yield [future.result() for future in waiting]
