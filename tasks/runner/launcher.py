"""Runs a stage in processes of its own, one for each worker, that train together on this machine.

Nothing outlives the stage: the kernel kills each worker when the process that started it dies,
and the first worker that fails ends the others. They meet in a file and talk over loopback, so
no port is open to the network. That is why this is not torchrun: its store listens on every
interface, and its agent stands between the stage and the workers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.artifacts import Artifact
from data.io.atomic import write_json
from tasks.paths import ROOT
from tasks.runner.stage import StageCall

RESULT = "result.json"
_TAIL = 25
_LONGEST = 1000  # characters of a cause
_RANK = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)  # what torch puts before each line
_running: set[int] = set()  # process groups


class StageWorkerError(RuntimeError):
    """A worker of a stage failed, and with it the stage; carries the end of its log."""

    def __init__(self, stage: str, failed: dict[int, tuple[int, Path]], size: int) -> None:
        self.workers = sorted(failed)
        told = "\n".join(
            f"--- worker {rank} of {size} {_reason(code)}, {log}:\n{_tail(log)}"
            for rank, (code, log) in failed.items()
        )
        causes = dict.fromkeys(cause for _, log in failed.values() if (cause := cause_in(log)))
        which = ", ".join(map(str, self.workers))
        super().__init__(
            f"{stage} ended because of worker {which}{''.join(f': {c}' for c in causes)}\nRun it "
            f"again to go on from the last checkpoint.\n{told}"
        )


def run(call: StageCall, logger: Any, size: int = 1) -> Artifact:
    """Run a stage in ``size`` processes and return what it made, with the first one's metrics.

    Raises:
        StageWorkerError: one of them ended with an error or was killed.
    """
    out = call.context.out
    folder = out.with_suffix(".workers")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    description = folder / "stage.json"
    write_json(description, _described(call, folder, size))
    logs = [folder / f"worker-{rank}.log" for rank in range(size)]
    processes: list[subprocess.Popen[bytes]] = []
    told = 0
    try:
        for rank, log in enumerate(logs):
            processes.append(_start(description, rank, size, log, call.context.runtime.threads))
            _running.add(processes[-1].pid)
        while True:
            codes = [process.poll() for process in processes]
            told = _tell(logs[0], told, logger)
            failed = {r: (code, logs[r]) for r, code in enumerate(codes) if code}
            if failed:
                raise StageWorkerError(call.stage.name, failed, size)
            if all(code == 0 for code in codes):
                break
            time.sleep(0.2)
    finally:
        _stop(processes)
    result: dict[str, dict[str, float]] = json.loads((folder / RESULT).read_text())
    shutil.rmtree(folder)
    call.context.log.measured.update(result["measured"])
    return call.stage.makes.made(out, result["metrics"])


def stop_all() -> None:
    """Kill every worker that this process started, for a run that is cancelled."""
    for group in list(_running):
        _kill(group)


def _described(call: StageCall, folder: Path, size: int) -> dict[str, Any]:
    context, earlier = call.context, call.context.earlier
    return {
        "stage": call.stage.name,
        "size": size,
        "config": context.config.model_dump(mode="json"),
        "parts": context.parts.model_dump(mode="json"),
        "runtime": context.runtime.model_dump(mode="json"),
        "inputs": {n: [a.stage, a.fingerprint, str(a.path)] for n, a in call.inputs.items()},
        "earlier": earlier and [earlier.stage, earlier.fingerprint, str(earlier.path)],
        "identity": context.identity,
        "donors": [str(path) for path in context.donors],
        "out": str(context.out),
        "run_id": getattr(context.log, "run_id", None),
        "meeting": str(folder / f"meeting-{uuid.uuid4().hex}"),
        "launcher": os.getpid(),
    }


def _start(
    description: Path, rank: int, size: int, log: Path, threads: int
) -> subprocess.Popen[bytes]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads or max(1, (cores or 1) // size)),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }
    # What the stage says goes on to the flow's log; what libraries print is kept for an error.
    with log.open("wb") as said, log.with_suffix(".err").open("wb") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.runner.worker", str(description), str(rank)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=printed,
            start_new_session=True,
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            _kill(process.pid)
        process.wait()
        _running.discard(process.pid)


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended by itself


def _tell(log: Path, told: int, logger: Any) -> int:
    with log.open("rb") as handle:
        handle.seek(told)
        new = handle.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        logger.info(line)
    return told + len(whole)


def _tail(log: Path) -> str:
    ends = [
        path.read_text(errors="replace").splitlines()[-_TAIL:]
        for path in (log, log.with_suffix(".err"))
    ]
    return "\n".join(line for end in ends for line in end)


def cause_in(log: Path) -> str:
    """The exception that a worker ended with, in a line, from its errors; "" for none."""
    text = log.with_suffix(".err").read_text(errors="replace")
    lines = _RANK.sub("", text).splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("Traceback")]
    if not starts:
        return ""
    after = lines[starts[-1] + 1 :]
    said = next((at for at, line in enumerate(after) if not line.startswith(" ")), len(after))
    return " ".join(after[said:])[:_LONGEST]


def _reason(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
