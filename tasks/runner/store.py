"""The store of artifacts: ``<stage>/<fingerprint>`` under ``var/store``, and the work on them.

Two rules, held here for every stage. What has the final name is used again only if it is what its
manifest says. What lies in ``<fingerprint>.partial`` counts as finished only if the journal proves
it, when work goes on and once more when it is sealed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from data.artifacts import Artifact
from data.io import journal
from data.io.atomic import unwritten, write_bytes, write_json
from data.io.journal import PARTIAL, Written
from data.manifest import (
    MANIFEST,
    STRAY,
    DamagedArtifactError,
    Manifest,
    checked_record,
    described,
    listed,
    other_rows,
    problems_of,
    read_manifest,
)
from tasks.paths import var_folder

BEFORE = "before.json"  # in the journal: the manifest of an artifact that is being mended
INPUTS = "inputs.json"  # in the journal: names of the artifacts that it is made of

Made = TypeVar("Made", bound=Artifact)


class MissingArtifactError(RuntimeError):
    """A stage was to run alone and one of its inputs has not been made."""

    def __init__(self, wanted: str, missing: str) -> None:
        super().__init__(
            f"{wanted} needs the artifact of {missing} with this configuration, and there is none. "
            f"Run `gill run {missing}` (with the same recipe and settings) or the full pipeline "
            "first."
        )


class OtherRowsError(RuntimeError):
    """An artifact was damaged, and what its source gives now are other rows."""

    def __init__(self, stage: str, partial: Path, rows: Mapping[str, str]) -> None:
        self.rows = dict(rows)
        super().__init__(
            f"{partial.stem} of {stage} was damaged and cannot be made again as it was: "
            f"{listed(rows)}. Its source gives other rows by now (failures/ says why), and what "
            f"was made of it would not fit. Put its files back from a copy, or delete {partial} "
            "and run `gill run --force`, which makes everything of what the source gives now."
        )


def store_folder() -> Path:
    """Where artifacts are kept: ``<stage>/<fingerprint>``."""
    return var_folder() / "store"


def find(artifact: Made) -> Made | None:
    """An artifact if it is finished, or None. Its files are not checked here."""
    return artifact if (artifact.path / MANIFEST).exists() else None


def finished(stage: str) -> dict[Path, Manifest]:
    """The finished artifacts of a stage, by folder, newest first; damaged ones are left out."""
    found = {}
    for folder in (store_folder() / stage).glob("*"):
        if folder.is_dir() and not folder.suffix:
            with suppress(DamagedArtifactError):  # `gill store verify` tells; a run mends it
                found[folder] = read_manifest(folder)
    made = {folder: str(m.provenance.get("made", "")) for folder, m in found.items()}
    newest = sorted(found, key=lambda folder: (made[folder], folder.name), reverse=True)
    return {folder: found[folder] for folder in newest}


def partial_of(artifact: Artifact) -> Path:
    """The folder of unfinished work on an artifact."""
    return artifact.path.with_name(f"{artifact.fingerprint}{PARTIAL}")


def is_whole(artifact: Artifact, logger: Any) -> bool:
    """Whether an artifact is there and all of it; a damaged one becomes unfinished work.

    Files that are none of its own are set aside.
    """
    folder, partial = artifact.path, partial_of(artifact)
    if not folder.exists() and (partial / MANIFEST).exists() and not problems_of(partial):
        seal(artifact)  # its maker was stopped right before this
    if not folder.exists():
        return False
    problems = problems_of(folder)
    strays = [name for name, what in problems.items() if what == STRAY]
    if strays:
        aside = folder.with_name(f"{artifact.fingerprint}.strays")
        logger.warning("%s holds files that are not its own, moved to %s: %s", folder, aside,
                       listed(problems))  # fmt: skip
        for name in strays:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(aside / name)
    damaged = {name: what for name, what in problems.items() if what != STRAY}
    if damaged:
        logger.warning("%s is damaged and will be rebuilt: %s", folder, listed(damaged))
        reopen(artifact)
    return not damaged


def reopen(artifact: Artifact) -> None:
    """Turn a damaged artifact back into unfinished work, in which its whole files are kept."""
    folder, partial = artifact.path, partial_of(artifact)
    with suppress(DamagedArtifactError):
        manifest = read_manifest(folder)
        files = {n: Written(f["bytes"], f["sha256"]) for n, f in manifest.files.items()}
        try:
            journal.add(folder, files)
        except OSError as error:
            raise unwritten(folder / journal.JOURNAL, error) from error
        write_bytes(folder / journal.JOURNAL / BEFORE, (folder / MANIFEST).read_bytes())
    (folder / MANIFEST).unlink(missing_ok=True)
    checked_record(folder).unlink(missing_ok=True)
    if partial.exists():
        shutil.rmtree(partial)
    folder.rename(partial)


def begin(artifact: Artifact, inputs: Iterable[Artifact], logger: Any) -> bool:
    """Make the folder of unfinished work, with nothing in it but what is proven to be finished.

    Args:
        inputs: what it is made of; the folder says so from now on, so that nobody prunes them.

    Returns:
        Whether there is something to go on with.
    """
    partial = partial_of(artifact)
    partial.mkdir(parents=True, exist_ok=True)
    names = sorted({name_of(given) for given in inputs})
    write_json(partial / journal.JOURNAL / INPUTS, names)
    proven, wrong = journal.keep_proven(partial, also=[MANIFEST])
    if wrong:
        logger.warning("removed from %s, to be made again: %s", partial, listed(wrong))
    return bool(proven)


def name_of(artifact: Artifact) -> str:
    """``stage/fingerprint``, by which artifacts speak of each other."""
    return f"{artifact.stage}/{artifact.fingerprint}"


def begun_with(folder: Path) -> tuple[str, ...] | None:
    """Names of what an artifact is made of, as was said when it was begun; None if nothing was."""
    try:
        names = json.loads((folder / journal.JOURNAL / INPUTS).read_bytes())
    except (OSError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def check_work(partial: Path, logger: Any) -> dict[str, dict[str, Any]] | None:
    """What a manifest says of the files of finished work; None if some had to be removed.

    Raises:
        OtherRowsError: it mends an artifact, and its tables have other rows than they had.
    """
    proven, wrong = journal.keep_proven(partial, also=[MANIFEST])
    if wrong:
        logger.warning("removed from %s before it was sealed: %s", partial, listed(wrong))
        return None
    files = described(partial, proven)
    before = _before(partial)
    if before is not None and (rows := other_rows(before, files)):
        raise OtherRowsError(partial.parent.name, partial, rows)
    return files


def seal(artifact: Artifact) -> None:
    """Give finished work its final name; its manifest is written."""
    partial = partial_of(artifact)
    (partial / journal.JOURNAL / BEFORE).unlink(missing_ok=True)
    if artifact.path.exists():
        shutil.rmtree(artifact.path)
    partial.rename(artifact.path)


def _before(partial: Path) -> Manifest | None:
    folder = partial / journal.JOURNAL
    if not (folder / BEFORE).exists():
        return None
    with suppress(DamagedArtifactError):
        return read_manifest(folder, BEFORE)
    return None
