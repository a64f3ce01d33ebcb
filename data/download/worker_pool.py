"""Worker processes that take jobs from one stream, supervised: one that dies is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data.download.settings import FetchSettings
from data.faults import SystematicFaultError
from data.io.atomic import WriteError

_ATTEMPTS = 3  # at a shard whose worker dies
_ENVIRONMENT = {
    "UV_THREADPOOL_SIZE": "32",  # in which names are resolved: four are too few for slow servers
    "OMP_NUM_THREADS": "1",
    # Freed memory goes back to the system: a sixth less at the peak, for no measurable time.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class WorkerError(RuntimeError):
    """Worker processes die over a shard."""


class WorkerPool:
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
                if "fault" in answer:
                    raise SystematicFaultError(answer["fault"])
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
