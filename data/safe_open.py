"""Picture files that a user names: opened with limits, refused by reason."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 50_000_000


class PictureFileError(ValueError):
    """A file that is no picture or too large a one.

    Attributes:
        reason: a word to count by.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def open_picture(path: Path | io.BytesIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture file, or its bytes, upright and as RGB; its size is checked before that.

    Raises:
        PictureFileError: the file is missing, no picture, too large or cut short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked here
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    raise PictureFileError(
                        "too_large",
                        f"{path} has {image.width} x {image.height} pixels, more than "
                        f"{max_pixels / 1e6:.0f} million; make it smaller first",
                    )
                return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise PictureFileError("missing", f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise PictureFileError("folder", f"{path} is a folder; name a picture file") from error
    except Image.DecompressionBombError as error:
        raise PictureFileError("too_large", f"{path} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise PictureFileError("not_image", f"{path} is no picture that Pillow can read") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, PictureFileError):
            raise
        raise PictureFileError("damaged", f"{path} cannot be decoded: {error}") from error
