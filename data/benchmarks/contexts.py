"""Images to be made from a context: stories and dialogues of any source, in one form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data.benchmarks.skips import Skipped, UnusableError
from data.io.image_decoder import SUFFIXES, ImageError, decode
from data.safe_open import open_image


class ContextError(ValueError):
    """A file of stories or dialogues cannot be used at all."""


@dataclass(frozen=True)
class ContextImage:
    """An image by its file, or by its bytes where it has none."""

    name: str
    path: Path | None = None
    data: bytes | None = None

    def open(self) -> Image.Image:
        """Decode it, upright and as RGB.

        Raises:
            ImageError: it is no whole image, or has too many pixels.
        """
        return decode(self.data or b"") if self.path is None else open_image(self.path)


Piece = str | ContextImage


@dataclass(frozen=True)
class Case:
    """One image to be made.

    Attributes:
        contexts: by name, from the shortest on: pieces of text and images in their order.
        truth: what the image must show, as JSON, where it is known; else "".
    """

    key: str
    target: ContextImage
    contexts: Mapping[str, tuple[Piece, ...]]
    truth: str = ""


@dataclass(frozen=True)
class Cases:
    """Cases that can be used, and how many cannot, by reason, with samples of those."""

    cases: list[Case]
    skipped: Mapping[str, int]
    samples: Sequence[Skipped] = ()


def story_contexts(texts: list[str], images: list[ContextImage]) -> dict[str, tuple[Piece, ...]]:
    """The three contexts of a story whose last image is to be made (the paper's VIST study)."""
    count = len(texts)
    pairs = zip(images[: count - 1], texts[:-1], strict=True)
    interleaved = [piece for pair in pairs for piece in pair]
    return {
        "1 caption": (texts[-1],),
        f"{count} captions": tuple(texts),
        f"{count} captions, {count - 1} images": (*interleaved, texts[-1]),
    }


def read_json(path: Path, wanted: str) -> Any:
    """Read a JSON file of some kind.

    Raises:
        ContextError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes(), parse_int=_whole)
    except OSError as error:
        raise ContextError(f"cannot read {wanted} {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ContextError(f"{path} is no JSON: {error}") from error


def _whole(digits: str) -> int | str:
    """A number of any length would cost minutes; one that names nothing stays a text."""
    return int(digits) if len(digits) < 19 else digits


def images_in(folder: Path) -> dict[str, Path]:
    """Every image below a folder by its name without suffix; the first of equal names.

    Raises:
        ContextError: there is no such folder or no image in it.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith("._")  # a Mac's notes on a file
        if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
            found.setdefault(path.stem, path)
    if not found:
        raise ContextError(f"there are no images in {folder}; give the folder with the images")
    return found


def usable_image(name: str, path: Path | None) -> ContextImage:
    """An image of a case, decoded once, so that none fails hours later in an evaluation.

    Raises:
        UnusableError: there is none, or it is refused.
    """
    if path is None:
        raise UnusableError("image: missing", name)
    image = ContextImage(name, path)
    try:
        image.open()
    except ImageError as error:
        raise UnusableError(f"image: {error.reason}", error) from error
    return image
