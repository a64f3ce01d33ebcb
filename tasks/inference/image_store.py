"""Images to retrieve: those of the store, or a folder of the user's own with an index of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from data import schemas
from data.artifacts import RetrievalIndex
from data.faults import Tolerance
from data.io.atomic import write_json
from data.io.image_decoder import SUFFIXES, any_size, decode
from data.lookup import ShardLookup
from data.safe_open import ImageFileError, open_image
from data.shards import lists, shard_names, write_shard
from data.sources.base import printable
from gill.inference.engine import GillEngine
from gill.inference.index import Index
from tasks.parts.retrieval_index import read_index

DESCRIPTION = "index.json"
_SHARD = 2048
_BATCH = 64


class ImageStoreError(ValueError):
    """A folder that holds no usable images or no usable index."""


class ImageStore(Protocol):
    """The images behind the keys of an index."""

    def origin(self, key: str) -> str:
        """Where an image came from."""

    def image(self, key: str) -> Image.Image:
        """The image itself."""


@dataclass(frozen=True)
class ShardImageStore:
    """The image shards of a download artifact.

    Attributes:
        rows: finds their rows by key.
    """

    rows: ShardLookup

    def origin(self, key: str) -> str:
        """What the source says of an image: an address, or a place in a pack."""
        return str(self.rows.value(key, "origin"))

    def image(self, key: str) -> Image.Image:
        """Decode a stored image."""
        data = self.rows.value(key, "image")
        assert isinstance(data, bytes)
        return decode(data, any_size)


@dataclass(frozen=True)
class FolderImageStore:
    """A folder of image files; a key is a path below it."""

    folder: Path

    def origin(self, key: str) -> str:
        """The file."""
        return str(self.folder / key)

    def image(self, key: str) -> Image.Image:
        """Decode the file."""
        return open_image(self.folder / key)


def identity_of(engine: GillEngine) -> str:
    """What an index depends on: the vision encoder's name and W_i2t."""
    image = engine.model.adapters.retrieval.image
    digest = hashlib.sha256(engine.vision.name.encode())
    for value in (image.weight, image.bias):
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:20]


def index_folder(
    engine: GillEngine,
    folder: Path,
    out: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, int]:
    """Index every image below a folder; files that are no images are counted by reason.

    Finished shards of a run that was killed are kept while the folder's files are the same.

    Args:
        out: gets ``embeddings/folder-<number>.parquet`` and ``index.json``, written last.
        progress: told how many of how many files are done.

    Returns:
        ``images`` and what was left out, by reason.

    Raises:
        ImageStoreError: the folder has no image that can be read.
        SystematicFaultError: too many files raise what nobody expects.
    """
    files = _files(folder)
    plan = {
        "folder": str(folder.absolute()),
        "made_with": identity_of(engine),
        "files": hashlib.sha256("\n".join(map(_stamp, files)).encode()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    _begin(out, plan)
    dropped: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for number, start in enumerate(range(0, len(files), _SHARD)):
        path = out / RetrievalIndex.FOLDER / f"folder-{number:05d}.parquet"
        report = path.with_suffix(".json")
        missed = _read(report)
        if not isinstance(missed, dict) or "samples" not in missed or not path.exists():
            missed = _index_shard(engine, folder, files[start : start + _SHARD], path)
            write_json(report, missed)
        dropped.update(missed["dropped"])
        samples = {**missed["samples"], **samples}
        progress(min(start + _SHARD, len(files)), len(files))
    images = len(files) - sum(dropped.values())
    if not images:
        why = dict(dropped) or "no image files"
        raise ImageStoreError(f"{folder} has no image that can be read ({why})")
    write_json(
        out / DESCRIPTION, {**plan, "images": images, "dropped": dropped, "samples": samples}
    )
    return {"images": images, **dropped}


def load_folder_index(engine: GillEngine, folder: Path) -> tuple[Index, FolderImageStore]:
    """Read what ``index_folder`` made.

    Raises:
        ImageStoreError: there is no finished index, or other weights made it.
    """
    if not (folder / DESCRIPTION).exists():
        raise ImageStoreError(
            f"{folder} has no finished index; make one with `gill index --images FOLDER "
            f"--out {folder}`"
        )
    try:
        made = json.loads((folder / DESCRIPTION).read_text())
        images = Path(made["folder"])
        made_with = str(made["made_with"])
    except (ValueError, LookupError, TypeError) as error:
        raise ImageStoreError(
            f"{folder / DESCRIPTION} is damaged ({error!r}); make the index again"
        ) from error
    if made_with != identity_of(engine):
        raise ImageStoreError(
            f"the index {folder} was made with other weights ({made_with}, not "
            f"{identity_of(engine)}); make it again with this model"
        )
    image_store = FolderImageStore(images)
    index = read_index(folder / RetrievalIndex.FOLDER)
    if len(index.keys) != made.get("images"):
        raise ImageStoreError(
            f"the index {folder} has {len(index.keys)} images, made were {made.get('images')}; "
            "make it again"
        )
    index.origin = image_store.origin
    return index, image_store


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ImageStoreError(f"{folder} is no folder of images")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith("._")  # a Mac's notes on a file
        and (path.is_file() or path.is_symlink())  # a link that leads nowhere is counted
    )


def _stamp(file: Path) -> str:
    """A file as it is now; ``lstat``, since a link may lead nowhere."""
    seen = file.lstat()
    return f"{os.fsencode(file)!r} {seen.st_size} {seen.st_mtime_ns}"


def _read(path: Path) -> Any:
    """What a JSON file holds; None if it is not there or cannot be read."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_bytes())
    return None


def _begin(out: Path, plan: dict[str, str]) -> None:
    """Drop the shards of another plan: other files or other weights."""
    record = out / "plan.json"
    (out / DESCRIPTION).unlink(missing_ok=True)
    if _read(record) == plan:
        return
    for name in shard_names(out / RetrievalIndex.FOLDER):
        (out / RetrievalIndex.FOLDER / name).unlink()
    write_json(record, plan)


def _index_shard(
    engine: GillEngine, folder: Path, files: Sequence[Path], path: Path
) -> dict[str, dict[str, Any]]:
    """Write one shard; returns what was left out by reason, and the first of each."""
    keys: list[str] = []
    parts = [np.empty((0, engine.model.adapters.spec.retrieval_dim), np.float32)]
    dropped: Counter[str] = Counter()
    faults, samples = Tolerance("files"), dict[str, str]()
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(files), _BATCH):
            chunk = files[start : start + _BATCH]
            images = []
            for file, found in zip(chunk, pool.map(_opened, chunk), strict=True):
                if isinstance(found, Image.Image):
                    images.append(found)
                    keys.append(file.relative_to(folder).as_posix())
                    faults.expected()
                    continue
                reason = _reason(file, found, faults)
                dropped[reason] += 1
                samples.setdefault(reason, printable(f"{file}: {found}")[:300])
            if images:
                parts.append(engine.embed_images(images).cpu().numpy())
    schema = schemas.embeddings(parts[0].shape[1])
    values = lists(np.concatenate(parts), np.float32)
    write_shard(path, pa.table([pa.array(keys, pa.string()), values], schema=schema))
    return {"dropped": dict(dropped), "samples": samples}


def _reason(file: Path, error: Exception, faults: Tolerance) -> str:
    if not isinstance(error, ImageFileError):
        return faults.unexpected(str(file), error)
    faults.expected()
    return error.reason


def _opened(path: Path) -> Image.Image | Exception:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return ImageFileError("bad_name", f"the name of {path} is not UTF-8; rename it")
    try:
        return open_image(path)
    except Exception as error:  # noqa: BLE001 one file must not end the others
        return error
