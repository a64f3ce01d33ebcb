"""Kills, damaged files and full disks on the tiny recipe, until all figures are in one JSON line.

    python -m benchmarks.endurance --folder /tmp/endurance --seed 0
    python -m benchmarks.endurance --folder /tmp/endurance --only finished --finished 10

Every run is the whole pipeline, stage by stage, in a process of its own. *Kills*: SIGKILL or
SIGTERM at a random moment, again and again until a run ends. Damages of *finished* artifacts and
of *unfinished* work: a file is deleted, emptied, cut, flipped, zeroed, grown or swapped with
another, or a stranger is put beside it. *Disks*: the disk fills up while the pipeline runs; needs
root for a small tmpfs, without it the size of files is limited instead (RLIMIT_FSIZE) and the line
says so. After each, the pipeline runs to its end and its artifacts must hold what those of an
undisturbed run hold. Ends with status 1 and the cases if one did not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.endurance_files import (
    DAMAGES,
    FINISHED,
    UNFINISHED,
    contents_of,
    damage,
    differences,
)

PARTS = {"kills": 50, "finished": 40, "unfinished": 20, "disks": 10}
_PATIENCE = 600.0  # seconds for a run
_TMPFS = 24 << 20  # bytes: the artifacts and databases of one run take about 8 MB


def run_stages(var: Path, log: Path) -> None:
    """The whole pipeline of the tiny recipe, in this process; logs what became of its stages."""
    import logging

    os.environ["GILL_VAR"] = str(var)
    logging.basicConfig(filename=log, level=logging.INFO, force=True)
    from flows.pipeline import dag
    from flows.recipes import tiny
    from tasks.runner.dag import plan
    from tasks.runner.execution import Execution
    from tasks.runner.record import StageRecord

    logger = logging.getLogger("gill")
    config = tiny().with_overrides({"runtime.minimum_free_bytes": 0, "runtime.threads": 1})
    for planned in plan(dag("staged"), config).values():
        result = Execution(planned, StageRecord(planned, None), force=False, logger=logger)()
        logger.info("stage %s %s", planned.stage.name, result.status)


@dataclass
class Run:
    """One run in a process that is forked off, so that nothing is imported again."""

    var: Path
    log: Path
    most_bytes: int = 0
    pid: int = field(init=False)
    status: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.log.write_bytes(b"")
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if self.most_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.most_bytes, self.most_bytes))
            run_stages(self.var, self.log)
            code = 0
        except Exception as error:  # noqa: BLE001 the parent judges it by its text
            with suppress(OSError):
                self.log.open("a").write(f"ERROR {type(error).__name__}: {error}\n")
        finally:
            os._exit(code)

    def wait(self, seconds: float = _PATIENCE) -> int | None:
        """Status of the process, or None if it has not ended by then."""
        end = time.monotonic() + seconds
        while self.status is None and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.005)
        return self.status

    def kill(self, how: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        os.kill(self.pid, how)
        os.waitpid(self.pid, 0)

    def said(self, word: str) -> list[str]:
        """Lines of its log with a word."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if word in line]


@dataclass
class Campaign:
    """Disturbs runs below a folder and compares what comes out with an undisturbed one."""

    folder: Path
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reference = self.folder / "reference"
        if not (self.folder / "seconds.json").exists():
            shutil.rmtree(self.reference, ignore_errors=True)
            self.reference.mkdir(parents=True)
            began = time.monotonic()
            run = self.run(self.reference)
            if run.wait() != 0:
                raise RuntimeError(f"the undisturbed run failed; see {run.log}")
            (self.folder / "seconds.json").write_text(json.dumps(time.monotonic() - began))
        self.seconds = float(json.loads((self.folder / "seconds.json").read_text()))
        self.expected = contents_of(self.reference / "store")
        print(f"undisturbed: {self.seconds:.1f} s, {len(self.expected)} files", flush=True)

    def run(self, var: Path) -> Run:
        """Start a run; its log lies in the campaign's folder, on no disk that fills up."""
        return Run(var, self.folder / f"{var.relative_to(self.folder).parts[0]}.log")

    def copy(self, name: str, stages: tuple[str, ...] | None = None) -> Path:
        """A ``var`` folder with the databases of the reference and some of its artifacts."""
        var = self.folder / name
        shutil.rmtree(var, ignore_errors=True)
        var.mkdir()
        shutil.copy(self.reference / "mlflow.db", var)
        for stage in (self.reference / "store").iterdir():
            if stages is None or stage.name in stages:
                shutil.copytree(stage, var / "store" / stage.name)
        return var

    def judge(self, case: str, run: Run, noticed: bool = True) -> None:
        """Let a run end, and count what came of it."""
        status = run.wait()
        if status is None:
            run.kill(signal.SIGKILL)
        found = differences(self.expected, contents_of(run.var / "store"))
        errors = run.said("ERROR ")
        if status == 0 and not found and noticed:
            self.counts["equal"] += 1
            return
        kind = "unnoticed" if status == 0 else "failed"
        self.counts[kind] += 1
        self.wrong.append(f"{case}: {kind}, status {status}, {found[:3]} {errors[:1]}")
        print(self.wrong[-1], flush=True)

    def kills(self, count: int) -> None:
        """Kill runs at random moments until so many were killed; each pipeline ends at last."""
        while self.counts["kills"] < count:
            var, before = self.copy("kills", ()), self.counts["kills"]
            while self.counts["kills"] < count and self.counts["kills"] - before < 10:
                how = self.chance.choice([signal.SIGKILL, signal.SIGTERM])
                run = self.run(var)
                # Early moments are likelier: later stages are reached in later attempts.
                if run.wait(self.chance.uniform(0.02, 0.35) * self.seconds) is not None:
                    break
                run.kill(how)
                self.counts["kills"] += 1
                self.counts[f"kills/{how.name}"] += 1
            self.judge(f"kills up to {self.counts['kills']}", self.run(var))
            print(f"kills: {self.counts['kills']}", flush=True)

    def finished(self, count: int) -> None:
        """Damage files of finished artifacts."""
        self.damages(FINISHED, count)

    def unfinished(self, count: int) -> None:
        """Damage files of unfinished work."""
        self.damages(UNFINISHED, count)

    def damages(self, places: Sequence[str], count: int) -> None:
        """Damage files at some places, each kind of damage in turn."""
        rounds = [place for _ in range(1 + count // len(places)) for place in places]
        # The second round through the places brings other kinds to each.
        kinds = [DAMAGES[(i + i // len(places)) % len(DAMAGES)] for i in range(count)]
        order = list(zip(rounds, kinds, strict=False))
        for number, (place, kind) in enumerate(order, 1):
            unfinished = places is UNFINISHED
            var = self.interrupted(place) if unfinished else self.copy("finished")
            found = damage(var / "store", place, kind, self.chance)
            if found is None:
                self.counts["damages/no such file"] += 1
                continue
            self.counts["damages"] += 1
            self.counts["damages/unfinished" if unfinished else "damages/finished"] += 1
            self.counts[f"damages/{kind}"] += 1
            run = self.run(var)
            run.wait()
            named = run.said("is damaged") + run.said("removed from") + run.said("not its own")
            # A file of unfinished work that is gone is work that was not done yet.
            noticed = bool(named) or (unfinished and kind == "deleted") or "*.jsonl" in place
            self.judge(f"{kind} {found}", run, noticed)
            print(f"damages: {number}, {kind} {found}", flush=True)

    def interrupted(self, place: str) -> Path:
        """A ``var`` folder whose run was killed when a file of unfinished work was there."""
        stage = place.partition("/")[0]
        order = [p.name for p in (self.reference / "store").iterdir()]
        var = self.copy("unfinished", tuple(name for name in order if name != stage))
        run = self.run(var)
        end = time.monotonic() + 4 * self.seconds
        while time.monotonic() < end and not any((var / "store").glob(place)):
            if run.wait(0.002) is not None:
                return var
        run.kill(signal.SIGKILL)
        return var

    def disks(self, count: int) -> None:
        """Let the disk fill up at a random moment; the error is one, and the next run goes on."""
        for number in range(1, count + 1):
            with small_disk(self.folder / "disk") as (disk, real):
                self.counts["disks" if real else "disks/RLIMIT_FSIZE"] += 1
                var = self.copy("disk/var" if real else "disk-var", ())
                ballast, most = disk / "ballast", 0
                if real:
                    run = self.run(var)
                    run.wait(self.chance.uniform(0.0, 0.9) * self.seconds)
                    fill(ballast, keep=self.chance.choice([0, 1 << 12, 1 << 16, 1 << 18]))
                else:
                    most = self.chance.choice([1 << 10, 1 << 12, 1 << 14])
                    run = Run(var, self.folder / "disk.log", most)
                status = run.wait()
                errors = run.said("ERROR ")
                if status and not any("bytes" in e and str(var) in e for e in errors):
                    self.wrong.append(f"disk {number}: no clear error, {errors[:1]}")
                    print(self.wrong[-1], flush=True)
                self.counts["disks/refused" if status else "disks/went on"] += 1
                if list(var.rglob("*.part")):
                    self.wrong.append(f"disk {number}: partial files were left")
                ballast.unlink(missing_ok=True)
                self.judge(f"disk {number}", self.run(var))
                print(f"disks: {number}", flush=True)


def fill(ballast: Path, keep: int) -> None:
    """Write until so many bytes are free."""
    free = shutil.disk_usage(ballast.parent).free
    with suppress(OSError), ballast.open("wb") as handle:
        for _ in range(max(0, free - keep) >> 12):
            handle.write(bytes(1 << 12))
            handle.flush()


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A tmpfs of a few megabytes, or a plain folder where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={_TMPFS}", "tmpfs", str(folder)]
    real = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    try:
        yield folder, real
    finally:
        if real:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def main() -> None:
    """Run the campaign, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, required=True, help="on a disk with 200 MB of room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS)
    for part, count in PARTS.items():
        parser.add_argument(f"--{part}", type=int, default=count, metavar="N")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    began = time.monotonic()
    imported()
    campaign = Campaign(given.folder.absolute(), random.Random(given.seed))
    for part in PARTS:
        if given.only in (None, part):
            getattr(campaign, part)(getattr(given, part))
    line = {
        "seed": given.seed,
        **dict(sorted(campaign.counts.items())),
        "unnoticed": campaign.counts["unnoticed"],
        "wrong": campaign.wrong,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(line))
    sys.exit(1 if campaign.wrong else 0)


def imported() -> None:
    """Import what a run needs, once, before processes are forked off."""
    import matplotlib.figure  # noqa: F401
    import mlflow  # noqa: F401
    import transformers  # noqa: F401

    import flows.pipeline
    import gill.backbones.testing.micro_models  # noqa: F401
    from tasks.runner.names import stage_names
    from tasks.runner.registry import stage_named

    assert flows.pipeline
    for name in stage_names():
        stage_named(name)


if __name__ == "__main__":
    main()
