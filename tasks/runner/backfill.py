"""Shards that an earlier artifact made of the same input: linked, and not made again.

A stage that converts image shards one by one leaves a record of what each of its shards was made
of: a hash of the stage's own fingerprint, without its inputs, and of the input shard's bytes. Where
pairs were added, failed links tried again or a shard repaired, most of these stay, and so do the
shards. They become hard links (copies on file systems without them): a file of the store is
replaced and never changed, so no artifact feels what becomes of another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data.artifacts import Artifact, ImageShards, ShardedArtifact
from data.io import journal
from data.io.atomic import write_json
from data.io.journal import Written, sha256_of
from data.io.links import link_or_copy
from data.manifest import DamagedArtifactError, read_manifest
from tasks.config.base import Config
from tasks.config.data import ShardedConfig
from tasks.tracking.stage_log import StageLog

RECORD = "made_of.json"  # relative path of a shard -> what it was made of
_TOGETHER = 64  # shards that are proven and entered in the journal at once


def converted_by(
    config: Config, made: type[Artifact], inputs: Mapping[str, Artifact]
) -> ImageShards | None:
    """The image shards that a stage converts one by one, if it is such a stage."""
    given = list(inputs.values())
    by_shard = isinstance(config, ShardedConfig) and issubclass(made, ShardedArtifact)
    if not by_shard or len(given) != 1 or not isinstance(given[0], ImageShards):
        return None
    return given[0]


def made_of(
    identity: str, images: ImageShards, folder: str, names: Sequence[str]
) -> dict[str, str]:
    """What each shard of a folder is made of, by its path in the artifact.

    Args:
        identity: of all that bears on a shard beside the image shard of its name.
    """
    files = images.manifest().files
    digests = {name: files[f"{ImageShards.FOLDER}/{name}"]["sha256"] for name in names}
    return {
        f"{folder}/{name}": hashlib.sha256(f"{identity} {digest}".encode()).hexdigest()
        for name, digest in digests.items()
    }


def all_made_of(identity: str, images: ImageShards, makes: type[ShardedArtifact]) -> dict[str, str]:
    """What each shard of an artifact is made of, also of the folders beside its own."""
    names = images.names()
    found = made_of(identity, images, makes.FOLDER, names)
    for folder, by in makes.BESIDE.items():
        found |= made_of(by, images, folder, names)
    return found


@dataclass(frozen=True)
class Backfill:
    """Fills unfinished work with shards of finished artifacts.

    Attributes:
        out: the folder of unfinished work. wanted: see ``made_of``.
        donors: artifacts to take from, the preferred first.
    """

    out: Path
    wanted: Mapping[str, str]
    donors: Sequence[Path]

    def __call__(self, log: StageLog) -> dict[str, int]:
        """Link what is there and write the record.

        Returns:
            How many shards came from which artifact.
        """
        write_json(self.out / RECORD, dict(self.wanted))
        taken: dict[str, int] = {}
        for donor in self.donors:
            count = sum(self._take(donor, log))
            if count:
                taken[f"{donor.parent.name}/{donor.name}"] = count
                log.note(f"{count} of {len(self.wanted)} shards reused from {donor.name}")
        log.metrics({"shards": len(self.wanted), "shards_reused": sum(taken.values())}, 0)
        return taken

    def _take(self, donor: Path, log: StageLog) -> Iterator[int]:
        pairs = list(_matches(donor, {n: w for n, w in self.wanted.items()
                                      if not (self.out / n).exists()}))  # fmt: skip
        for start in range(0, len(pairs), _TOGETHER):
            some = pairs[start : start + _TOGETHER]
            with ThreadPoolExecutor(4, "prove") as pool:
                whole = list(pool.map(lambda pair: _is(donor / pair[1], pair[2]), some))
            linked = {}
            for (name, theirs, held), good in zip(some, whole, strict=True):
                if good and link_or_copy(donor / theirs, self.out / name):
                    linked[name] = held
                else:
                    log.note(f"not reused, since it is damaged or gone: {donor / theirs}")
            journal.add(self.out, linked)
            yield len(linked)


def count_new(wanted: Mapping[str, str], donors: Sequence[Path]) -> int:
    """How many shards no artifact has, by their records alone."""
    found = {name for donor in donors for name, _, _ in _matches(donor, wanted)}
    return len(wanted) - len(found)


def _matches(donor: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, str, Written]]:
    """Names that are wanted, those of the same in an artifact, and what that says they hold."""
    try:
        files = read_manifest(donor).files
        record = donor / RECORD
        if RECORD not in files or not _is(record, _written(files[RECORD])):
            return
        theirs = {made: name for name, made in json.loads(record.read_bytes()).items()}
    except (DamagedArtifactError, OSError, ValueError):
        return
    for name, made in wanted.items():
        if (there := theirs.get(made)) in files:
            yield name, str(there), _written(files[str(there)])


def _written(described: Mapping[str, object]) -> Written:
    return Written(int(str(described["bytes"])), str(described["sha256"]))


def _is(path: Path, held: Written) -> bool:
    try:
        return path.stat().st_size == held.bytes and sha256_of(path) == held.sha256
    except OSError:
        return False
