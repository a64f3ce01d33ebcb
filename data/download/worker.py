"""A process that fills shards: jobs as JSON lines come in, statistics go out.

One event loop fetches, one thread decodes, one writes; two or three shards are open at once, so
that the last slow addresses of a shard do not leave the process idle. The process ends when its
input does, which is also what happens when its parent dies.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import uvloop

from data.download.addresses import normalise
from data.download.atomic_store import Store
from data.download.duplicates import SETTLED
from data.download.fetch_errors import TRANSIENT, FetchError
from data.download.http_client import HttpClient
from data.download.image_codec import process
from data.download.image_shards import OpenShard, Row, failed_rows
from data.download.settings import HttpLimits, ImageRules
from data.faults import SystematicFaultError, Tolerance
from data.io.atomic import WriteError
from data.io.image_decoder import ImageError


class Worker:
    """Fills shards of one store in this process."""

    def __init__(self, store: Store, web: HttpClient, rules: ImageRules) -> None:
        self.store, self.web, self.rules = store, web, rules
        self._decoder = ThreadPoolExecutor(1, "decode")
        self._writer = ThreadPoolExecutor(1, "write")
        self._faults = Tolerance("addresses")

    async def shard(self, job: dict[str, Any]) -> dict[str, Any]:
        """Fetch the rows of a job and write its shard.

        Args:
            job: ``name``; ``rows`` for a first fetch; ``passes`` and ``mode`` for a later pass.
        """
        shard = OpenShard(self.store, job["name"], job["passes"])
        try:
            groups: defaultdict[str, list[Row]] = defaultdict(list)
            waits: dict[str, float] = {}
            if job["passes"]:
                for row, reason, detail, retry_at in failed_rows(self.store, job["name"]):
                    again = job["mode"] == "all" and row.source and reason not in SETTLED
                    if again or reason in TRANSIENT:
                        groups[row.origin].append(row)
                        waits[row.origin] = retry_at
                    else:
                        shard.fail(row, reason, detail, retry_at)
            else:
                for values in job["rows"]:
                    row = Row(*values)
                    if row.reason:
                        shard.fail(row, row.reason, row.origin)
                    else:
                        groups[_spelling(row.origin)].append(row)
            await asyncio.gather(
                *(self._fetch(shard, rows, waits.get(at, 0.0)) for at, rows in groups.items())
            )
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._writer, shard.finish)
        finally:
            shard.close()

    async def _fetch(self, shard: OpenShard, rows: Sequence[Row], not_before: float) -> None:
        """One address, for all rows that have it."""
        loop = asyncio.get_running_loop()
        if not_before:
            longest = self.web.limits.longest_pause
            await asyncio.sleep(min(max(0.0, not_before - time.time()), longest))

        def made(body: bytes) -> None:
            image = process(body, self.rules)
            place = shard.keep(image.data)
            for row in rows:
                shard.add(row, body, image, place)

        async def use(body: bytes) -> None:
            await loop.run_in_executor(self._decoder, made, body)

        try:
            await self.web.fetch(rows[0].origin, use)
            self._faults.expected()
        except (FetchError, ImageError) as error:
            self._faults.expected()
            for row in rows:
                shard.fail(row, error.reason, error.detail, getattr(error, "retry_at", 0.0))
        except (WriteError, SystematicFaultError):
            raise  # not this address's fault
        except Exception as error:  # noqa: BLE001 one address must not end the others
            reason = self._faults.unexpected(rows[0].origin, error)
            for row in rows:
                shard.fail(row, reason, str(error)[:300])


def _spelling(text: str) -> str:
    """The spelling under which addresses are the same."""
    try:
        return str(normalise(text))
    except FetchError:
        return text


async def serve(settings: dict[str, Any], out: Any) -> None:
    """Do the jobs on standard input until it ends."""
    loop = asyncio.get_running_loop()
    jobs: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(jobs.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(jobs.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    limits = HttpLimits(**settings["web"])
    running: set[asyncio.Task[None]] = set()
    async with HttpClient(limits, settings["in_flight"]) as web:
        worker = Worker(Store(settings["store"]), web, ImageRules(**settings["images"]))

        async def do(job: dict[str, Any]) -> None:
            try:
                answer = await worker.shard(job)
            except WriteError as error:
                answer = {"name": job["name"], "error": str(error)}
            except SystematicFaultError as error:
                answer = {"name": job["name"], "fault": str(error)}
            answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            out.write(json.dumps(answer) + "\n")
            out.flush()

        while (job := await jobs.get()) is not None:
            task = asyncio.create_task(do(job))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(_raise)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _raise(task: asyncio.Task[None]) -> None:
    """A fault of this program ends the process, which its parent notices."""
    if not task.cancelled() and (error := task.exception()) is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(1)


def main() -> None:
    """Run as ``python -m data.download.worker``; the first line of input is the settings."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, most), most))
    cv2.setNumThreads(1)
    settings = json.loads(sys.stdin.readline())
    uvloop.run(serve(settings, out))
    os._exit(0)  # a decoder at work on a last image is not waited for


if __name__ == "__main__":
    main()
