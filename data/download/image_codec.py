"""Turns the bytes that somebody sent as an image into an upright RGB image of a known size.

What the bytes are is read from the bytes. Sizes are read from the header and checked before
anything is decoded. JPEG goes the fast way (simplejpeg, scaled while decoding, then OpenCV), all
else and JPEG with warnings through Pillow with a list of allowed formats.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from data.download.settings import ImageRules

Pixels = npt.NDArray[np.uint8]
ALLOWED = ("JPEG", "PNG", "GIF", "WEBP")
_MAGIC = (
    (b"\xff\xd8\xff", 0, "jpeg"), (b"\x89PNG\r\n\x1a\n", 0, "png"), (b"GIF8", 0, "gif"),
    (b"WEBP", 8, "webp"), (b"ftypavif", 4, "avif"), (b"ftypavis", 4, "avif"), (b"ftyp", 4, "heic"),
    (b"II*\x00", 0, "tiff"), (b"MM\x00*", 0, "tiff"), (b"BM", 0, "bmp"),
    (b"\x00\x00\x00\x0cjP  ", 0, "jpeg2000"), (b"\xff\x0a", 0, "jxl"),
    (b"\x00\x00\x00\x0cJXL ", 0, "jxl"), (b"\x00\x00\x01\x00", 0, "ico"), (b"%PDF", 0, "pdf"),
    (b"\x1f\x8b", 0, "gzip"), (b"PK\x03\x04", 0, "zip"),
)  # fmt: skip
_MARKUP = (
    (b"<!doctype html", "html"), (b"<html", "html"), (b"<head", "html"), (b"<body", "html"),
    (b"<script", "html"), (b"<!--", "html"), (b"<", "xml"), (b"{", "json"), (b"[", "json"),
)  # fmt: skip
_UNSUPPORTED = {"tiff", "bmp", "avif", "heic", "jpeg2000", "jxl"}
_SCALED_DECODING = 2  # a JPEG is decoded smaller only when it stays this many times as large


class ImageError(Exception):
    """Why bytes are not an image that is wanted: a counted reason and a detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail[:300]


@dataclass(frozen=True)
class EncodedImage:
    """A finished image: its bytes, its size, and the upright size it came with."""

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int


def kind_of(data: bytes) -> str:
    """What bytes are by their first ones: ``jpeg``, ``html``, ``empty``, ..., ``unknown``."""
    for magic, place, kind in _MAGIC:
        if data.startswith(magic, place):
            return kind
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if b"<svg" in head:
        return "svg"
    text = "text" if head.isascii() and b"\x00" not in head else "unknown"
    return next((kind for start, kind in _MARKUP if head.startswith(start)), text)


def process(data: bytes, rules: ImageRules) -> EncodedImage:
    """Check, decode, turn upright, resize and encode.

    Raises:
        ImageError: its reason is one of docs/download.md.
    """
    kind = kind_of(data)
    if kind in _UNSUPPORTED:
        raise ImageError("unsupported", kind)
    if kind not in {"jpeg", "png", "gif", "webp"}:
        raise ImageError(f"not_image:{kind}", data[:60].decode("ascii", "replace"))
    fast = _fast_jpeg(data, rules) if kind == "jpeg" else None
    pixels, (width, height) = _pillow(data, rules) if fast is None else fast
    if rules.resize == "original":
        return EncodedImage(data, width, height, width, height)
    pixels = _resized(pixels, rules)
    made = simplejpeg.encode_jpeg(
        pixels, quality=rules.quality, colorspace="RGB", colorsubsampling="420"
    )
    return EncodedImage(made, pixels.shape[1], pixels.shape[0], width, height)


def _check(width: int, height: int, rules: ImageRules) -> None:
    short, long = sorted((width, height))
    if width * height > rules.most_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height}")
    if short < rules.smallest:
        raise ImageError("too_small", f"{width} x {height}")
    if long > rules.widest * short:
        raise ImageError("bad_aspect", f"{width} x {height}")


def _fast_jpeg(data: bytes, rules: ImageRules) -> tuple[Pixels, tuple[int, int]] | None:
    """Upright pixels and upright original size, or None for what Pillow must look at."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check(width, height, rules)
    if colours not in {"YCbCr", "Gray", "RGB"}:
        return None
    shortest = 0 if rules.resize == "original" else rules.size
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=shortest,
            min_width=shortest,
            min_factor=_SCALED_DECODING if shortest else 1,
        )
    except ValueError:
        return None
    orientation = _jpeg_orientation(data)
    pixels = _upright(pixels, orientation)
    return pixels, ((height, width) if orientation > 4 else (width, height))


def _jpeg_orientation(data: bytes) -> int:
    if b"Exif\x00\x00" not in data[: 128 << 10]:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return _orientation(image)
    except Exception:  # noqa: BLE001 a header that turbojpeg took and Pillow does not
        return 1


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; EXIF that cannot be read turns nothing."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 struct.error, and whatever else Pillow's TIFF reader raises
        return 1
    return found if found in range(1, 9) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    turned: Any = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
        7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda p: p.transpose(1, 0, 2)[::-1],
    }[orientation](pixels)
    return np.ascontiguousarray(turned)


def _pillow(data: bytes, rules: ImageRules) -> tuple[Pixels, tuple[int, int]]:
    """The first frame as upright RGB, white behind what is transparent."""
    try:
        with Image.open(io.BytesIO(data), formats=ALLOWED) as opened:
            _check(*opened.size, rules)
            opened.load()
            orientation = _orientation(opened)
            image: Image.Image = opened
            if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip
                wide = np.asarray(image, np.float32)
                image = Image.fromarray((wide / 257).clip(0, 255).round().astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                ground = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(ground, image)
            pixels = _upright(np.asarray(image.convert("RGB")), orientation)
            return pixels, (pixels.shape[1], pixels.shape[0])
    except UnidentifiedImageError as error:
        raise ImageError("corrupt", str(error)) from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except ImageError:
        raise
    except Exception as error:  # whatever Pillow's plugins raise for broken files
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise ImageError(reason, f"{type(error).__name__}: {error}") from error


def _resized(pixels: Pixels, rules: ImageRules) -> Pixels:
    height, width = pixels.shape[:2]
    short = min(height, width)
    scale = rules.size / short
    if rules.resize == "crop":
        if scale <= 1:  # cut before scaling: fewer pixels to work on
            top, left = (height - short) // 2, (width - short) // 2
            pixels = pixels[top : top + short, left : left + short]
            return _scaled(pixels, rules.size, rules.size, scale)
        pixels = _scaled(pixels, math.ceil(width * scale), math.ceil(height * scale), scale)
        top, left = (pixels.shape[0] - rules.size) // 2, (pixels.shape[1] - rules.size) // 2
        return np.ascontiguousarray(pixels[top : top + rules.size, left : left + rules.size])
    if scale >= 1:
        return pixels
    return _scaled(pixels, round(width * scale), round(height * scale), scale)


def _scaled(pixels: Pixels, width: int, height: int, scale: float) -> Pixels:
    if scale == 1:
        return np.ascontiguousarray(pixels)
    # Linear blends four neighbours: below half the size it would skip pixels, area does not.
    how = cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8)
