"""Image files that a user names: opened with limits, refused by reason and in whole sentences."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from data.io.image_decoder import FORMATS, MOST_PIXELS, ImageError, at_most, decode

MOST_BYTES = 256 << 20  # of a file


class ImageFileError(ImageError):
    """A file that is no image or too large a one; its reason is a word to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.message = message

    def __str__(self) -> str:
        return self.message


def open_image(path: Path, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode an image file, upright and as RGB; its size is checked before that.

    Raises:
        ImageFileError: the file is ``missing``, a ``folder``, ``unreadable``, has
            ``too_many_bytes``, or is refused by ``data.io.image_decoder``.
    """
    data = _bytes_of(path)
    try:
        return decode(data, at_most(most_pixels))
    except ImageError as error:
        if error.reason.startswith("not_image"):
            message = f"{path} is no image; it looks like {error.reason.partition(':')[2]}"
        elif error.reason == "unsupported":
            message = f"{path} is of an unsupported kind ({error.detail}); give one of {FORMATS}"
        elif error.reason == "too_many_pixels":
            most = f"{most_pixels / 1e6:.0f} million"
            message = (
                f"{path} is too large ({error.detail}; at most {most} pixels); make it smaller"
            )
        else:
            message = f"{path} cannot be decoded ({error.reason}: {error.detail})"
        raise ImageFileError(error.reason, message) from error


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ImageFileError("missing", f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise ImageFileError("folder", f"{path} is a folder; name an image file") from error
    except (OSError, ValueError) as error:  # a loop of links, no permission, a NUL in the name
        raise ImageFileError("unreadable", f"cannot read {path}: {error}") from error
    if len(data) > MOST_BYTES:
        most = MOST_BYTES >> 20
        raise ImageFileError("too_many_bytes", f"{path} has more than {most} MiB; make it smaller")
    return data
