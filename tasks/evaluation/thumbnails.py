"""Images that are kept beside a result to be looked at: small files."""

from __future__ import annotations

import io

from PIL import Image

from data.io.image_decoder import any_size, decode

SHOWN = 256  # edge of such an image, in pixels


def thumbnail(image: Image.Image, edge: int = SHOWN) -> bytes:
    """An image as a WebP file of at most ``edge`` pixels a side."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((edge, edge))
    small.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """The image of such a file."""
    return decode(data, any_size)
