"""The downloader: a list of addresses into image shards, on as many processes as there are cores.

``prepare`` reads the list once: it counts the rows, finds the rows whose address stands in an
earlier one, and records what the folder is made from. ``fill`` has worker processes fill the shards
that are not finished. A killed worker is replaced and its shards are done again; a killed ``fill``
goes on at the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.download.atomic_store import Store
from data.download.http_client import FetchError, normalise
from data.download.image_shards import STATS, shard_name
from data.download.settings import FetchSettings
from data.io.atomic import WriteError
from data.sources.base import Pair, Rejected, Source

IDENTITY = "identity.json"
_ATTEMPTS = 3  # at a shard whose worker dies
_ENVIRONMENT = {
    "UV_THREADPOOL_SIZE": "32",  # in which names are resolved: four are too few for slow servers
    "OMP_NUM_THREADS": "1",
    # Freed memory goes back to the system: a sixth less at the peak, for no measurable time.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class IdentityError(ValueError):
    """A folder holds shards of another list or configuration."""


class WorkerError(RuntimeError):
    """Worker processes die over a shard."""


@dataclass(frozen=True)
class Plan:
    """The shards of a list: its splits with their rows, and the rows that repeat an address."""

    rows: dict[str, int]
    shard_size: int
    store: Store = field(repr=False)

    def shards(self, split: str) -> list[str]:
        """Names of the shards of a split."""
        return [shard_name(split, i) for i in range(-(-self.rows[split] // self.shard_size))]

    def unfinished(self, passes: int) -> list[str]:
        """Shards of all splits that have not had so many passes over their failures."""
        done = {
            name.removesuffix(".json")
            for name in self.store.names(STATS, ".json")
            if not passes or self.store.read_json(f"{STATS}/{name}")["passes"] >= passes
        }
        return [name for split in self.rows for name in self.shards(split) if name not in done]

    def repeats(self, split: str) -> pa.Table:
        """Rows that repeat an address, see ``schemas.REPEATS``."""
        with self.store.open(f"plan/{split}.parquet") as handle:
            return pq.read_table(handle)


def prepare(source: Source, settings: FetchSettings) -> Plan:
    """Read the list, or what an earlier process found in it, and remove what it left half done.

    For one process at a time; others that fill the same folder call ``planned``.

    Raises:
        IdentityError: the folder is of another list or configuration; says what differs.
        WriteError: the folder cannot be written.
    """
    store = Store(settings.store)
    identity = json.loads(
        json.dumps({"source": source.identity(), **settings.fingerprint_fields()})
    )
    if store.exists(IDENTITY):
        found = store.read_json(IDENTITY)
        differs = [
            f"{key}: {then!r} then, {now!r} now"
            for key, then, now in _differences(found["identity"], identity)
        ]
        if differs:
            raise IdentityError(
                f"{store.address} was begun with another list or configuration ("
                + "; ".join(differs)
                + "). Use another folder, or go back to what it was begun with."
            )
        store.sweep()
        return Plan(found["rows"], settings.shard_size, store)
    rows = {split: _scan(source, split, store) for split in source.splits()}
    store.write_json(IDENTITY, {"identity": identity, "rows": rows})
    return Plan(rows, settings.shard_size, store)


def planned(settings: FetchSettings) -> Plan:
    """What ``prepare`` found, for the processes that share its work."""
    store = Store(settings.store)
    return Plan(store.read_json(IDENTITY)["rows"], settings.shard_size, store)


def _differences(then: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            yield from _differences(then.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif then != now:
        yield key, then, now


def _scan(source: Source, split: str, store: Store) -> int:
    """Write the rows that repeat an address; return the number of rows.

    Addresses are compared by 64 bits of their hash: 8 bytes a row, and for CC3M's 3.3 million rows
    a chance of 3 in 10 million that any two differ and are taken for one.
    """
    hashes = np.fromiter(
        (_hash(p) if isinstance(p, Pair) else 2 * n for n, p in enumerate(source.pairs(split))),
        np.uint64,
    )
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first[inverse]
    repeated = np.flatnonzero(firsts != np.arange(len(hashes)))
    wanted, found = set(repeated.tolist()), []
    if wanted:
        for number, pair in enumerate(source.pairs(split)):
            if number in wanted and isinstance(pair, Pair):
                found.append(
                    {
                        "row": number,
                        "first": int(firsts[number]),
                        "key": pair.key,
                        "caption": pair.caption,
                        "origin": pair.origin,
                        "source": pair.source,
                    }
                )
    table = pa.Table.from_pylist(found, schema=schemas.REPEATS)
    store.write(f"plan/{split}.parquet", lambda h: pq.write_table(table, h, compression="zstd"))
    return len(hashes)


def _hash(pair: Pair) -> int:
    try:
        text = str(normalise(pair.origin))
    except FetchError:
        text = pair.origin
    # Odd, so that no address equals a row that cannot be read.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) | 1


def jobs(source: Source, plan: Plan, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The first fetch of some shards, in the order of the list, read once for each split."""
    wanted = set(names)
    for split in plan.rows:
        mine = [name for name in plan.shards(split) if name in wanted]
        if not mine:
            continue
        repeats = plan.repeats(split).to_pylist()
        moved = {r["row"] for r in repeats}
        joined: dict[int, list[dict[str, Any]]] = {}
        for repeat in repeats:
            joined.setdefault(repeat["first"] // plan.shard_size, []).append(repeat)
        stream = iter(enumerate(source.pairs(split)))
        for number, name in enumerate(plan.shards(split)):
            chunk = islice(stream, plan.shard_size)
            if name not in wanted:
                deque(chunk, maxlen=0)
                continue
            kept = [pair for row, pair in chunk if row not in moved]
            rows = [
                [p.key, p.caption, p.place, "", p.reason]
                if isinstance(p, Rejected)
                else [p.key, p.caption, p.origin, p.source, ""]
                for p in kept
            ]
            rows += [
                [r["key"], r["caption"], r["origin"], r["source"], ""]
                for r in joined.get(number, [])
            ]
            yield {"name": name, "passes": 0, "rows": rows}
            if name == mine[-1]:
                break


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
        _Pool(settings, work, done).run()


class _Pool:
    """Supervised worker processes that take jobs from one stream."""

    def __init__(
        self,
        settings: FetchSettings,
        work: Iterator[dict[str, Any]],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        self._settings, self._work, self._done = settings, work, done
        self._lock = threading.Lock()
        self._again: deque[dict[str, Any]] = deque()
        self._attempts: dict[str, int] = {}
        self._failed: BaseException | None = None
        self._stop = threading.Event()
        self._workers: set[subprocess.Popen[str]] = set()

    def run(self) -> None:
        """Do all jobs; on an error or an interruption no process is left."""
        count = self._settings.processes or os.cpu_count() or 1
        threads = [threading.Thread(target=self._supervise, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(0.1)
                if not threading.main_thread().is_alive():
                    break  # the interpreter is closing down around this thread
        finally:
            self._stop.set()
            with self._lock:
                for worker in self._workers:
                    worker.kill()
            for thread in threads:
                thread.join()
        if self._failed is not None:
            raise self._failed

    def _next(self) -> dict[str, Any] | None:
        with self._lock:
            if self._stop.is_set():
                return None
            return self._again.popleft() if self._again else next(self._work, None)

    def _supervise(self) -> None:
        """Keep one worker process busy, and replace it when it dies."""
        try:
            while not self._stop.is_set() and (job := self._next()) is not None:
                self._serve(job)
        except BaseException as error:  # noqa: BLE001 handed to the thread that called run
            self._failed = self._failed or error
            self._stop.set()

    def _serve(self, job: dict[str, Any]) -> None:
        worker = self._start()
        open_jobs: dict[str, dict[str, Any]] = {}
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            waiting: dict[str, Any] | None = job
            while waiting is not None or open_jobs:
                while waiting is not None:
                    open_jobs[waiting["name"]] = waiting
                    worker.stdin.write(json.dumps(waiting) + "\n")
                    worker.stdin.flush()
                    room = len(open_jobs) < self._settings.shards_at_once
                    waiting = self._next() if room else None
                line = worker.stdout.readline()
                if not line.endswith("\n"):
                    raise BrokenPipeError
                answer = json.loads(line)
                if "error" in answer:
                    raise WriteError(answer["error"])
                del open_jobs[answer["name"]]
                self._done(answer)
                waiting = self._next()
        except BrokenPipeError:
            if not self._stop.is_set():
                self._died(worker, open_jobs)
        finally:
            self._end(worker)

    def _start(self) -> subprocess.Popen[str]:
        settings = {
            "store": self._settings.store,
            "web": self._settings.web.model_dump(),
            "images": self._settings.images.model_dump(),
            "in_flight": self._settings.in_flight,
        }
        environment = {**os.environ, **_ENVIRONMENT}
        worker = subprocess.Popen(
            [sys.executable, "-m", "data.download.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        with self._lock:
            self._workers.add(worker)
        if worker.stdin is not None:
            worker.stdin.write(json.dumps(settings) + "\n")
        return worker

    def _end(self, worker: subprocess.Popen[str]) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was still to be sent to a dead worker

    def _died(self, worker: subprocess.Popen[str], open_jobs: dict[str, dict[str, Any]]) -> None:
        code = worker.wait()
        for name, job in open_jobs.items():
            self._attempts[name] = self._attempts.get(name, 0) + 1
            if self._attempts[name] >= _ATTEMPTS:
                raise WorkerError(
                    f"{self._attempts[name]} worker processes ended (the last with {code}) while "
                    f"the shard {name} was open; the lines before this say why, and finished "
                    "shards are kept"
                )
            with self._lock:
                self._again.append(job)
