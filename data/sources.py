"""Where image-caption pairs come from: one interface, every source streams.

A source yields each of its rows in the same order: a ``Pair`` with the picture's bytes, a ``Pair``
without them whose ``origin`` is the address to fetch, or a ``Rejected`` row. Nothing is skipped, so
the number of a row is stable and so is the shard that holds it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, Protocol

import fsspec
import pyarrow.parquet as pq

from data.artifacts import sha256_of

PACK = Path(__file__).parent / "embedded"
LONGEST_LINE = 1 << 20
LARGEST_MEMBER = 64 << 20
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


class SourceError(ValueError):
    """A source cannot be read or is not the one that was recorded."""


@dataclass(frozen=True)
class Pair:
    """One image and its caption, as the source holds them.

    Attributes:
        origin: where the picture is from; the address to fetch when ``image`` is None.
        title: a short caption, or "".
    """

    key: str
    caption: str
    origin: str
    source: str
    image: bytes | None
    title: str = ""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: why, and where it is."""

    key: str
    reason: str
    place: str
    caption: str = ""


class Source(Protocol):
    """A stream of pairs by split, with an identity that changes when its contents do."""

    @property
    def remote(self) -> bool:
        """Whether its pictures are addresses that must be fetched."""

    def identity(self) -> str:
        """Hash of what the source holds; part of the download stage's fingerprint."""

    def splits(self) -> list[str]:
        """Names of the splits, in the order in which they are written."""

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split, always in the same order."""


@dataclass(frozen=True)
class EmbeddedPack:
    """The pack that ships with the project (``data/embedded``): drawn pictures and captions.

    Attributes:
        limit: at most this many pairs of each split (the tiny recipe), or None for all.
        folder: where ``pairs.parquet`` and ``pack.json`` lie.
    """

    limit: int | None = None
    folder: Path = PACK
    remote: ClassVar[bool] = False

    def identity(self) -> str:
        """Digest of the pack and the limit."""
        return hashlib.sha256(f"{self._expected()} {self.limit}".encode()).hexdigest()

    def splits(self) -> list[str]:
        """Train, validation and test: no title is in two of them."""
        return ["train", "validation", "test"]

    def pairs(self, split: str) -> Iterator[Pair]:
        """Stream the pairs of a split after checking the pack's checksum.

        Raises:
            SourceError: the pack is missing or differs from the checksum that is committed with it.
        """
        path = self.folder / "pairs.parquet"
        if not path.exists():
            raise SourceError(f"the embedded pack is missing: {path}; restore it with git checkout")
        found = sha256_of(path)
        if found != self._expected():
            raise SourceError(
                f"{path} has the checksum {found[:12]}, not {self._expected()[:12]} of pack.json; "
                "restore it with git checkout"
            )
        given = 0
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                if row["split"] != split:
                    continue
                if self.limit is not None and given >= self.limit:
                    return
                given += 1
                yield Pair(
                    row["key"],
                    row["caption"],
                    row["origin"],
                    row["style"],
                    row["image"],
                    row["title"],
                )

    def _expected(self) -> str:
        return str(json.loads((self.folder / "pack.json").read_text())["sha256"])


@dataclass(frozen=True)
class _Files:
    """A source that is a list of files for each split.

    Attributes:
        paths: split -> path or fsspec address, with wildcards where that is said. The suffix
            ``[from:to]`` takes some rows: ``{"validation": "v.tsv[:5000]", "test":
            "v.tsv[5000:]"}`` makes two splits of one list.
        limit: at most this many rows of each split, or None for all.
    """

    paths: Mapping[str, str]
    limit: int | None = None
    remote: ClassVar[bool] = False

    def identity(self) -> str:
        """Digest of the files: of their contents where they are local, else of what is known."""
        found = {split: [_describe(f) for f in self.files(split)] for split in self.splits()}
        described = [type(self).__name__, dict(self.paths), self.limit, found, self._more()]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def splits(self) -> list[str]:
        """The splits, in the order in which they are given."""
        if not self.paths:
            raise SourceError("the source has no files; set download.paths, such as {'train': ...}")
        return list(self.paths)

    def files(self, split: str) -> list[str]:
        """The files of a split, sorted.

        Raises:
            SourceError: there are none.
        """
        pattern = _sliced(self.paths[split])[0]
        system, inner = fsspec.core.url_to_fs(pattern)
        found = sorted(system.unstrip_protocol(f) for f in system.glob(inner))
        found = [f.removeprefix("file://") for f in found]
        if not found:
            raise SourceError(f"the split {split!r} has no file {pattern}; mend download.paths")
        return found

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split."""
        start, stop = _sliced(self.paths[split])[1]
        if self.limit is not None:
            stop = start + self.limit if stop is None else min(stop, start + self.limit)
        return islice(self._rows(split), start, stop)

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        raise NotImplementedError

    def _more(self) -> object:
        """What else the rows depend on."""
        return None


class CaptionedUrls(_Files):
    """CC3M as its publisher gives it: ``caption<TAB>url`` lines without a header, plain or gzip.

    Lines end at a newline and nowhere else, quotes mean nothing, and the address follows the last
    tab, so that every caption is kept word for word.
    """

    remote: ClassVar[bool] = True

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        for key, place, line, reason in _lines(self.files(split), split):
            caption, tab, url = line.rpartition("\t")
            if not tab:
                yield Rejected(key, reason or "no_tab", place, line)
            else:
                yield Pair(key, caption, url.strip(), "cc3m", None)


@dataclass(frozen=True)
class CaptionedFiles(_Files):
    """The reference implementation's list: ``caption<TAB>image`` with a header, and a folder.

    Attributes:
        images: the folder that the names in the list are in.
    """

    images: str = ""

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        folder = Path(self.images)
        if not folder.is_dir():
            raise SourceError(f"download.images is {self.images!r}, which is no folder")
        for key, place, line, reason in _lines(self.files(split), split):
            if line == "caption\timage":
                continue
            caption, tab, name = line.rpartition("\t")
            path = (folder / name).resolve()
            if not tab:
                yield Rejected(key, reason or "no_tab", place, line)
            elif not path.is_relative_to(folder.resolve()):
                yield Rejected(key, "outside_folder", place, caption)
            elif not path.is_file():
                yield Rejected(key, "missing_file", f"{place}: {name}", caption)
            else:
                yield Pair(key, caption, name, "folder", path.read_bytes())

    def _more(self) -> object:
        return self.images


class TarFiles(_Files):
    """Webdataset tar files such as ``pixparse/cc3m-wds``: ``x.jpg`` and ``x.txt`` or ``x.json``.

    The path may hold wildcards and be any fsspec address. A damaged tar file is named and the next
    one is read.
    """

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        for path in self.files(split):
            name = PurePosixPath(path).name
            stem, members = "", dict[str, bytes | None]()
            try:
                with fsspec.open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
                    for member in tar:
                        if not member.isfile():
                            continue
                        found, dot, extension = PurePosixPath(member.name).name.partition(".")
                        found = str(PurePosixPath(member.name).parent / found)
                        if found != stem and members:
                            yield _example(split, name, stem, members)
                            members = {}
                        stem = found
                        large = member.size > LARGEST_MEMBER
                        handle = None if large else tar.extractfile(member)
                        members[dot + extension.lower()] = handle.read() if handle else None
            except (tarfile.TarError, EOFError, OSError) as error:
                # The example at hand may be short of its last bytes, so it goes with the damage.
                yield Rejected(f"{split}-{name}-damaged", "damaged_tar", f"{path}: {error}")
                continue
            if members:
                yield _example(split, name, stem, members)


def _example(
    split: str, tar: str, stem: str, members: Mapping[str, bytes | None]
) -> Pair | Rejected:
    key, place = f"{split}-{tar.removesuffix('.tar')}-{stem}", f"{tar}: {stem}"
    image = next((members[e] for e in PICTURES if e in members), None)
    try:
        text = members.get(".txt")
        about = json.loads(members.get(".json") or b"{}")
        caption = text.decode() if text is not None else about.get("caption")
        origin = about.get("url") or place
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        return Rejected(key, "bad_member", f"{place}: {error}")
    if not isinstance(caption, str):
        return Rejected(key, "no_caption", place)
    if image is None:
        return Rejected(key, "no_image", f"{place}: {sorted(members)}", caption)
    return Pair(key, caption, str(origin), "webdataset", image)


@dataclass(frozen=True)
class HuggingFaceDataset:
    """A Hugging Face data set or a folder of Parquet files, streamed through ``datasets``.

    Attributes:
        name: a hub name such as ``google-research-datasets/conceptual_captions``, or a folder.
        columns: ``caption`` and ``image`` or ``url`` -> the column that holds it.
        splits_of: our split -> theirs, with an optional ``[from:to]``.
        revision: the commit of a hub data set, which is part of the identity.
    """

    name: str
    columns: Mapping[str, str]
    splits_of: Mapping[str, str]
    revision: str = "main"
    limit: int | None = None

    @property
    def remote(self) -> bool:
        """Whether the data set holds addresses only."""
        return "url" in self.columns

    def identity(self) -> str:
        """Digest of the files of a folder, or of the hub name and the commit."""
        folder = Path(self.name)
        about: Any = [self.name, self.revision]
        if folder.is_dir():
            about = [_describe(str(f)) for f in sorted(folder.rglob("*.parquet"))]
        described = [about, dict(self.columns), dict(self.splits_of), self.limit]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def splits(self) -> list[str]:
        """Our names of the splits."""
        return list(self.splits_of)

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split.

        Raises:
            SourceError: a column is missing, or neither an image nor a URL column is named.
        """
        import datasets

        theirs, (start, stop) = _sliced(self.splits_of[split])
        revision = None if Path(self.name).is_dir() else self.revision
        stream = datasets.load_dataset(self.name, split=theirs, streaming=True, revision=revision)
        picture = self.columns.get("image")
        if (picture is None) == (self.columns.get("url") is None):
            raise SourceError(f"download.columns is {dict(self.columns)}; name image or url")
        known = set(stream.features or {})
        missing = sorted(set(self.columns.values()) - known) if known else []
        if missing:
            raise SourceError(f"{self.name} has no column {missing}; it has {sorted(known)}")
        if picture is not None:
            stream = stream.cast_column(picture, datasets.Image(decode=False))
        if self.limit is not None:
            stop = start + self.limit if stop is None else min(stop, start + self.limit)
        rows = stream.skip(start) if start else stream
        for number, row in enumerate(islice(rows, None if stop is None else stop - start), start):
            yield self._pair(f"{split}-{number:09d}", f"{self.name} row {number}", row)

    def _pair(self, key: str, place: str, row: Mapping[str, Any]) -> Pair | Rejected:
        caption = row[self.columns["caption"]]
        if not isinstance(caption, str):
            return Rejected(key, "no_caption", place)
        if "url" in self.columns:
            return Pair(key, caption, str(row[self.columns["url"]] or ""), "huggingface", None)
        image = row[self.columns["image"]]
        if not image or not image.get("bytes"):
            return Rejected(key, "no_image", place, caption)
        return Pair(key, caption, image.get("path") or place, "huggingface", image["bytes"])


def _lines(paths: Sequence[str], split: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, place, text and, where a line of some files cannot be read, the reason."""
    number = 0
    for path in paths:
        with fsspec.open(path, "rb", compression="infer") as file:
            for at, line in enumerate(_bounded(file), 1):
                key, place = f"{split}-{number:09d}", f"{path} line {at}"
                number += 1
                if line is None:
                    yield key, place, "", "line_too_long"
                    continue
                try:
                    text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
                except UnicodeDecodeError:
                    yield key, place, "", "not_utf8"
                else:
                    yield key, place, text, ""


def _bounded(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of a file, None for one that is longer than any caption and address can be."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
        yield None


def _sliced(text: str) -> tuple[str, tuple[int, int | None]]:
    """``a.tsv[2:5]`` as the path and the rows."""
    found = re.fullmatch(r"(.*)\[(\d*):(\d*)\]", text)
    if found is None:
        return text, (0, None)
    path, start, stop = found.groups()
    return path, (int(start or 0), int(stop) if stop else None)


def _describe(path: str) -> list[object]:
    """What identifies a file: the digest of a local list, size and version of all else."""
    local = Path(path)
    if local.exists():
        stat = local.stat()
        if local.suffix in {".tsv", ".gz", ".txt"}:
            return [local.name, sha256_of(local)]
        return [local.name, stat.st_size, stat.st_mtime_ns]
    system, inner = fsspec.core.url_to_fs(path)
    about = system.info(inner)
    version = about.get("ETag") or about.get("etag") or about.get("mtime") or about.get("created")
    return [path, about.get("size"), str(version)]
