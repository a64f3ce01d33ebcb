"""Turns the bytes that somebody sent as an image into an upright RGB image of a known size.

``data.io.image_decoder`` says what an image is and decodes it. JPEG without warnings goes a fast
way that gives the same: simplejpeg, scaled while decoding, then OpenCV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from data.download.settings import ImageRules
from data.io.image_decoder import (
    WEB_FORMATS,
    ImageError,
    check_kind,
    check_work,
    decode,
    jpeg_orientation,
)

Pixels = npt.NDArray[np.uint8]
_SCALED_DECODING = 2  # a JPEG is decoded smaller only when it stays this many times as large


@dataclass(frozen=True)
class EncodedImage:
    """A finished image: its bytes, its size, and the upright size it came with."""

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int


def process(data: bytes, rules: ImageRules) -> EncodedImage:
    """Check, decode, turn upright, resize and encode.

    Raises:
        ImageError: its reason is one of docs/download.md.
    """
    kind = check_kind(data, WEB_FORMATS)
    fast = _fast_jpeg(data, rules) if kind == "jpeg" else None
    if fast is None:
        image = decode(data, partial(_check, rules=rules), WEB_FORMATS)
        fast = np.asarray(image), image.size
    pixels, (width, height) = fast
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
    check_work(data, width, height)
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
    orientation = jpeg_orientation(data)
    if orientation == 1:
        return pixels, (width, height)
    pixels = _upright(pixels, orientation)
    return pixels, ((height, width) if orientation > 4 else (width, height))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
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
