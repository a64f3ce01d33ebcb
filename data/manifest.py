"""Manifests: what a finished artifact is, and the one check of whether it still is that.

What is checked when an artifact is used again (``problems_of``):

- the manifest can be read, carries the checksum of its own contents, and is of this stage and
  fingerprint;
- the folder holds the files that it lists, each of the right size, and no others of their kinds;
- the contents of every file, by SHA-256. An artifact over ``HASHED_UP_TO`` bytes is not read again
  for that while the size, inode and times of its files are those of the last time: they are kept
  beside the folder in ``<fingerprint>.checked.json``, which may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.io.atomic import WriteError, write_json
from data.io.journal import PARTIAL, Written, files_in, sha256_of

MANIFEST = "manifest.json"
SEAL = "sha256"  # of the rest of a manifest
STRAY = "not of this artifact"
HASHED_UP_TO = 64 << 20  # bytes of an artifact whose contents are read at each reuse
_SETTLED = 2.0  # seconds: the coarsest clock of file systems


class DamagedArtifactError(RuntimeError):
    """Files of an artifact are missing or differ from its manifest."""

    def __init__(self, stage: str, path: Path, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__(
            f"the {stage} artifact at {path} is damaged ({len(problems)} files: "
            f"{listed(problems)}). Run `gill run {stage}` with the same recipe and settings: it "
            "rebuilds what is damaged."
        )


@dataclass(frozen=True)
class Manifest:
    """What a finished artifact is and how it came to be.

    Attributes:
        files: by relative path ``bytes`` and ``sha256``; of a table with keys also ``rows`` and
            ``keys``, a digest of the keys in their order.
    """

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, float]
    files: dict[str, dict[str, Any]]
    provenance: dict[str, Any] = field(default_factory=dict)


def listed(problems: Mapping[str, str], most: int = 5) -> str:
    """The first problems in one line."""
    said = [f"{name}: {what}" for name, what in list(problems.items())[:most]]
    return "; ".join(said + ["..."] * (len(problems) > most))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes the folder an artifact once it is renamed."""
    described = asdict(manifest)
    write_json(folder / MANIFEST, {**described, SEAL: _seal(described)})


def read_manifest(folder: Path, name: str = MANIFEST) -> Manifest:
    """Read the manifest of a folder.

    Raises:
        DamagedArtifactError: there is none, or it is not as it was written.
    """
    problem: str
    try:
        described = json.loads((folder / name).read_bytes())
        seal = described.pop(SEAL, None)
        # Manifests of earlier versions carry no checksum.
        if seal is not None and seal != _seal(described):
            problem = "changed since it was written"
        elif seal is None and {f.name for f in fields(Manifest)} != set(described):
            problem = "holds no manifest"
        else:
            return Manifest(**described)
    except FileNotFoundError:
        problem = "missing"
    except OSError as error:
        problem = f"cannot be read: {error}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = f"cannot be read: {error}"
    raise DamagedArtifactError(folder.parent.name, folder, {name: problem})


def _seal(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def described(folder: Path, held: Mapping[str, Written]) -> dict[str, dict[str, Any]]:
    """What a manifest says of files: sizes and digests, and of tables the rows and their keys.

    Args:
        held: what each file holds, by relative path.
    """
    return {
        name: {**asdict(what), **(_rows_of(folder / name) if name.endswith(".parquet") else {})}
        for name, what in held.items()
    }


def _rows_of(path: Path) -> dict[str, Any]:
    try:
        if "key" not in pq.read_schema(path).names:
            return {}
        keys = pq.read_table(path, columns=["key"]).column("key").to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DamagedArtifactError(
            path.parents[1].parent.name, path.parents[1], {path.name: str(error)}
        ) from error
    digest = hashlib.sha256("\n".join(map(str, keys)).encode("utf-8", "surrogatepass"))
    return {"rows": len(keys), "keys": digest.hexdigest()}


def problems_of(folder: Path, thorough: bool = False) -> dict[str, str]:
    """What is wrong with a finished artifact by file, see above: empty when all is well.

    Args:
        thorough: read all contents, however large.
    """
    try:
        manifest = read_manifest(folder)
    except DamagedArtifactError as error:
        return error.problems
    named = f"{folder.parent.name}/{folder.name.removesuffix(PARTIAL)}"
    if named != f"{manifest.stage}/{manifest.fingerprint}":
        return {MANIFEST: f"of {manifest.stage}/{manifest.fingerprint}, not of {named}"}
    if not manifest.files:
        return {MANIFEST: "lists no files"}
    there = {path.relative_to(folder).as_posix(): path for path in files_in(folder)}
    there.pop(MANIFEST, None)
    found = dict.fromkeys(sorted(manifest.files.keys() - there.keys()), "missing")
    kinds = {Path(name).suffix for name in manifest.files}
    strays = sorted(there.keys() - manifest.files.keys())
    found |= {name: STRAY for name in strays if Path(name).suffix in kinds}
    to_read: list[str] = []
    for name in sorted(manifest.files.keys() & there.keys()):
        size, wanted = there[name].stat().st_size, manifest.files[name]["bytes"]
        if size != wanted:
            found[name] = f"{size} bytes, not {wanted}"
        else:
            to_read.append(name)
    digests = {name: str(manifest.files[name]["sha256"]) for name in to_read}
    return found | _Contents(folder, digests, thorough).problems()


@dataclass(frozen=True)
class _Contents:
    """Compares contents with digests, and remembers which files it has read."""

    folder: Path
    digests: Mapping[str, str]
    thorough: bool

    def problems(self) -> dict[str, str]:
        """Files whose contents are others."""
        began, stamps = time.time(), {name: self._stamp(name) for name in self.digests}
        small = sum(stamp[1] for stamp in stamps.values()) <= HASHED_UP_TO
        known = {} if self.thorough or small else self._known()
        to_read = [n for n, stamp in stamps.items() if known.get(n) != [self.digests[n], *stamp]]
        found: dict[str, str] = {}
        with ThreadPoolExecutor(4, "hash") as pool:
            for name, digest in zip(to_read, pool.map(self._digest, to_read), strict=True):
                if digest != self.digests[name]:
                    found[name] = "other contents" if len(digest) == 64 else digest
        if to_read and not small:
            settled = (began - _SETTLED) * 1e9
            seen = {
                name: [self.digests[name], *stamp]
                for name, stamp in stamps.items()
                if name not in found and max(stamp[2:]) < settled
            }
            with suppress(WriteError):  # they are read again then
                write_json(checked_record(self.folder), seen)
        return found

    def _digest(self, name: str) -> str:
        try:
            return sha256_of(self.folder / name)
        except OSError as error:
            return f"cannot be read: {error}"

    def _stamp(self, name: str) -> list[int]:
        stat = (self.folder / name).stat()
        return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]

    def _known(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            known = json.loads(checked_record(self.folder).read_bytes())
            if isinstance(known, dict):
                return known
        return {}


def checked_record(folder: Path) -> Path:
    """Where is kept which files of an artifact were read and found well."""
    return folder.with_name(f"{folder.name}.checked.json")


def forget_checks(folders: Iterable[Path]) -> None:
    """Have the contents of artifacts read the next time, however large they are."""
    for folder in folders:
        with suppress(OSError):
            checked_record(folder).unlink(missing_ok=True)


def other_rows(before: Manifest, now: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Tables that hold other rows than they did, of an artifact that was made again.

    Args:
        now: as of a manifest's ``files``.
    """
    found: dict[str, str] = {}
    for name, then in before.files.items():
        if "rows" not in then:
            continue
        rows = now.get(name, {}).get("rows", 0)
        if rows != then["rows"]:
            found[name] = f"{rows} rows, {then['rows']} before"
        elif now[name].get("keys") != then["keys"]:
            found[name] = f"{rows} rows as before, but others"
    return found
