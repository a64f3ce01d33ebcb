"""Image files that a user names: opened with limits, refused by reason."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 50_000_000


class ImageFileError(ValueError):
    """A file that is no image or too large a one.

    Attributes:
        reason: a word to count by.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def open_image(path: Path | io.BytesIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file, or its bytes, upright and as RGB; its size is checked before that.

    Raises:
        ImageFileError: the file is missing, no image, too large or cut short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked here
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    raise ImageFileError(
                        "too_large",
                        f"{path} has {image.width} x {image.height} pixels, more than "
                        f"{max_pixels / 1e6:.0f} million; make it smaller first",
                    )
                return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise ImageFileError("missing", f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise ImageFileError("folder", f"{path} is a folder; name an image file") from error
    except Image.DecompressionBombError as error:
        raise ImageFileError("too_large", f"{path} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageFileError("not_image", f"{path} is no image that Pillow can read") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError("damaged", f"{path} cannot be decoded: {error}") from error
