"""Care of the store: what is there, what needs it, what can go, and whether it is still whole."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from data.io.atomic import write_json
from data.io.journal import PARTIAL
from data.manifest import MANIFEST, DamagedArtifactError, checked_record, problems_of, read_manifest
from tasks.paths import LAST_RUN, var_folder
from tasks.runner.run_records import run_records
from tasks.runner.store import begun_with, store_folder
from tasks.tracking.progress import forget_progress

_PINS = "pins.json"


class StoreError(ValueError):
    """No artifact of the store is meant by what was said."""


@dataclass(frozen=True)
class Stored:
    """A finished artifact of the store, or what a run has left unfinished.

    Attributes:
        made: UTC time as text, "" for what is unfinished.
        held: bytes of its files by device and inode, the names that each has here and its names in
            all: a shard that several artifacts have lies on the disk once.
        inputs: names of the artifacts that it was made of, or None where it does not say.
        problem: why its manifest cannot be read, or "".
    """

    stage: str
    fingerprint: str
    path: Path
    made: str
    held: Mapping[tuple[int, int], tuple[int, int, int]]
    inputs: tuple[str, ...] | None
    unfinished: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """``stage/fingerprint``."""
        return f"{self.stage}/{self.fingerprint}"

    @property
    def bytes(self) -> int:
        """Of its files, whoever else has them."""
        return bytes_of([self])


def bytes_of(some: Iterable[Stored]) -> int:
    """Bytes on the disk of some artifacts together."""
    return sum({inode: size for one in some for inode, (size, _, _) in one.held.items()}.values())


def freed_by(some: Iterable[Stored]) -> int:
    """Bytes that are free when some artifacts are gone: those of files with no name elsewhere."""
    left: dict[tuple[int, int], int] = {}
    sizes: dict[tuple[int, int], int] = {}
    for one in some:
        for inode, (size, here, everywhere) in one.held.items():
            left[inode] = left.get(inode, everywhere) - here
            sizes[inode] = size
    return sum(size for inode, size in sizes.items() if left[inode] <= 0)


def stored() -> list[Stored]:
    """Everything in the store by stage, oldest first."""
    paths = [p for p in sorted(store_folder().glob("*/*")) if p.suffix in {"", PARTIAL}]
    found = [_described(path) for path in paths if path.is_dir()]
    return sorted(found, key=lambda one: (one.stage, one.made or "9", one.fingerprint))


def _described(path: Path) -> Stored:
    stats = [p.stat() for p in path.rglob("*") if p.is_file()]
    names = Counter((stat.st_dev, stat.st_ino) for stat in stats)
    size = {
        inode: (stat.st_size, names[inode], stat.st_nlink)
        for stat in stats
        for inode in [(stat.st_dev, stat.st_ino)]
    }
    if path.suffix == PARTIAL:
        return Stored(
            path.parent.name, path.stem, path, "", size, begun_with(path), unfinished=True
        )
    try:
        manifest = read_manifest(path)
    except DamagedArtifactError as error:
        problem = error.problems[MANIFEST]
        return Stored(
            path.parent.name, path.name, path, "", size, begun_with(path), problem=problem
        )
    made = str(manifest.provenance.get("made", ""))
    inputs = tuple(manifest.inputs.values())
    return Stored(path.parent.name, path.name, path, made, size, inputs)


def pinned() -> list[str]:
    """Names of the artifacts that are to be kept."""
    path = var_folder() / _PINS
    return list(json.loads(path.read_text())) if path.exists() else []


def pin(name: str, keep: bool = True) -> str:
    """Keep an artifact and all that it was made of, or no longer; returns its whole name.

    Args:
        name: ``stage/fingerprint``; the fingerprint's beginning is enough.

    Raises:
        StoreError: none or several are meant.
    """
    meant = [one.name for one in stored() if not one.unfinished and one.name.startswith(name)]
    if len(meant) != 1:
        said = "there is none" if not meant else f"it stands for {', '.join(meant)}"
        raise StoreError(f"{name!r} is no artifact's name: {said}; `gill store list` shows all")
    kept = [other for other in pinned() if other != meant[0]] + (meant if keep else [])
    write_json(var_folder() / _PINS, sorted(kept))
    return meant[0]


def needed(everything: list[Stored], unfinished: bool = True) -> dict[str, str]:
    """Artifacts that must stay, by name, each with the reason.

    Those of the last run and of runs that are under way, those that are pinned, those that a
    process works on now, and all that these were made of.

    Args:
        unfinished: also what runs have left unfinished, and the artifacts of runs that were killed.
    """
    reasons: dict[str, str] = {}
    for name in pinned():
        reasons[name] = "pinned"
    for name in _of_the_last_run():
        reasons.setdefault(name, "of the last run")
    for one in everything:
        if is_locked(one.path.with_name(one.fingerprint)):
            reasons[one.name] = "in use"
    for run in run_records():
        if run.under_way:
            _keep(reasons, run.artifacts, "of a run that is under way")
        elif run.killed and unfinished:
            _keep(reasons, run.artifacts, "of a run that was killed")
    if unfinished:
        _keep(reasons, [one.name for one in everything if one.unfinished], "unfinished work")
    inputs = {one.name: one.inputs or () for one in everything}
    waiting = list(reasons)
    while waiting:
        name = waiting.pop()
        for made_of in inputs.get(name, ()):
            if made_of not in reasons:
                reasons[made_of] = f"needed by {name}"
                waiting.append(made_of)
    return reasons


def _keep(reasons: dict[str, str], names: Iterable[str], why: str) -> None:
    for name in names:
        reasons.setdefault(name, why)


def silent(everything: list[Stored], reasons: Mapping[str, str]) -> list[Stored]:
    """Those that must stay and do not say what they are made of, which then must stay too."""
    return [one for one in everything if one.name in reasons and one.inputs is None]


def _of_the_last_run() -> Iterator[str]:
    path = var_folder() / LAST_RUN
    try:
        stages: Mapping[str, Mapping[str, str]] = json.loads(path.read_text())["stages"]
    except (OSError, ValueError, KeyError):
        return
    for stage, described in stages.items():
        yield f"{stage}/{described['fingerprint']}"


def is_locked(artifact: Path) -> bool:
    """Whether a process holds the lock of an artifact: it makes it, or waits to reuse it."""
    path = artifact.with_name(f"{artifact.name}.lock")
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def remove(one: Stored) -> None:
    """Remove an artifact from the store, unless a run has taken it up meanwhile.

    Raises:
        StoreError: a run works on it.
    """
    lock = FileLock(one.path.with_name(f"{one.fingerprint}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{one.name} is in use now; it was left as it is") from None
    try:
        manifest = one.path / MANIFEST
        manifest.unlink(missing_ok=True)  # first, so that what is half removed is no artifact
        shutil.rmtree(one.path)
        checked_record(one.path).unlink(missing_ok=True)
        if one.unfinished:
            forget_progress(one.path)
    finally:
        lock.release()


def damage(one: Stored) -> dict[str, str]:
    """What is wrong with the files of a finished artifact: each is read whole and compared."""
    return problems_of(one.path, thorough=True)
