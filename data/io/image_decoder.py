"""The one decoder of image bytes: what training sees of an image is what users' commands see.

An image is its first frame, upright (orientation of EXIF, or of XMP where there is no other), as
RGB: 16-bit grey is scaled, not clipped; white lies behind what is transparent. What the bytes are
is read from the bytes, and sizes from the header before any pixel is decoded. A file that is cut
short is refused. Bytes are hostile: whatever a library raises over them is a counted refusal.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

warnings.filterwarnings("ignore", module=r"PIL\..*")  # of metadata that nobody here can mend
Image.MAX_IMAGE_PIXELS = None  # sizes are checked here, before pixels are, by the caller's limit

MOST_PIXELS = 50_000_000
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif",
            ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm"}  # fmt: skip
WEB_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
FORMATS = (*WEB_FORMATS, "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_MOST_PIXELS_A_BYTE = 10_000  # PNG's best is 8,256 (1 bit a pixel); more is made to cost
_MOST_WORK = 1_000_000_000  # pixels times scans of a progressive JPEG: some ten seconds
_ORIENTATION = 0x0112
_TIFF_PREFIX = re.compile(rb"xmlns:([\w.-]+)\s*=\s*[\"']http://ns\.adobe\.com/tiff/1\.0/[\"']")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC = (
    (b"\xff\xd8\xff", 0, "jpeg"), (b"\x89PNG\r\n\x1a\n", 0, "png"), (b"GIF8", 0, "gif"),
    (b"WEBP", 8, "webp"), (b"ftypavif", 4, "avif"), (b"ftypavis", 4, "avif"), (b"ftyp", 4, "heic"),
    (b"II*\x00", 0, "tiff"), (b"MM\x00*", 0, "tiff"), (b"II+\x00", 0, "tiff"),
    (b"MM\x00+", 0, "tiff"), (b"BM", 0, "bmp"), (b"\x00\x00\x00\x0cjP  ", 0, "jpeg2000"),
    (b"\xff\x4f\xff\x51", 0, "jpeg2000"), (b"\xff\x0a", 0, "jxl"),
    (b"\x00\x00\x00\x0cJXL ", 0, "jxl"), (b"\x00\x00\x01\x00", 0, "ico"), (b"%PDF", 0, "pdf"),
    (b"\x1f\x8b", 0, "gzip"), (b"PK\x03\x04", 0, "zip"),
    *((b"P%d%c" % (n, space), 0, "ppm") for n in range(1, 7) for space in b" \t\r\n"),
)  # fmt: skip
_MARKUP = (
    (b"<!doctype html", "html"), (b"<html", "html"), (b"<head", "html"), (b"<body", "html"),
    (b"<script", "html"), (b"<!--", "html"), (b"<", "xml"), (b"{", "json"), (b"[", "json"),
)  # fmt: skip
_IMAGES = {"jpeg", "png", "gif", "webp", "avif", "heic", "tiff", "bmp", "jpeg2000", "jxl", "ppm"}


class ImageError(ValueError):
    """Why bytes are not an image that is wanted.

    Attributes:
        reason: a word to count by: ``not_image:<kind>``, ``unsupported``, ``too_many_pixels``,
            ``too_many_scans``, ``truncated``, ``corrupt``, or a word of the caller's ``check``.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail[:300]


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


def at_most(most_pixels: int) -> Callable[[int, int], None]:
    """A check of the size: so many pixels."""

    def check(width: int, height: int) -> None:
        if width * height > most_pixels:
            raise ImageError("too_many_pixels", f"{width} x {height}")

    return check


def any_size(width: int, height: int) -> None:
    """The check for images of our own shards, which were checked when they came."""


_usual_size = at_most(MOST_PIXELS)


def decode(
    data: bytes,
    check: Callable[[int, int], None] = _usual_size,
    formats: tuple[str, ...] = FORMATS,
) -> Image.Image:
    """The image that bytes hold: the first frame, upright, as RGB.

    Args:
        check: is told width and height as stored, before pixels are decoded, and may raise.
        formats: Pillow's names of those that are taken.

    Raises:
        ImageError: it is none, or not wanted.
    """
    check_kind(data, formats)
    try:
        return _decoded(data, check, formats)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("corrupt", str(error)) from error
    except Exception as error:  # whatever Pillow's plugins raise over bytes that are broken
        if data.startswith(b"\x89PNG") and len(bare := _without_text(data)) < len(data):
            return decode(bare, check, formats)
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise ImageError(reason, f"{type(error).__name__}: {error}") from error


def check_kind(data: bytes, formats: tuple[str, ...] = FORMATS) -> str:
    """What kind of image bytes are.

    Raises:
        ImageError: ``not_image`` with what they are instead, or ``unsupported``.
    """
    kind = kind_of(data)
    if kind not in _IMAGES:
        raise ImageError(f"not_image:{kind}", data[:60].decode("ascii", "replace"))
    if kind.upper() not in formats:
        raise ImageError("unsupported", kind)
    return kind


def check_work(data: bytes, width: int, height: int) -> None:
    """Refuse bytes that cost far more to decode than an image of their size does.

    Raises:
        ImageError: ``too_many_pixels`` for so few bytes, or ``too_many_scans``.
    """
    if width * height > _MOST_PIXELS_A_BYTE * max(100, len(data)):
        raise ImageError("too_many_pixels", f"{width} x {height} in {len(data)} bytes")
    if data.startswith(b"\xff\xd8"):
        scans = data.count(b"\xff\xda")  # in coded data FF is followed by 00 or a restart marker
        if width * height * scans > max(_MOST_WORK, 12 * width * height):
            raise ImageError("too_many_scans", f"{scans} of {width} x {height}")


def orientation_of(image: Image.Image) -> int:
    """How an image is to be turned, 1 to 8; what cannot be read turns nothing."""
    try:
        found = image.getexif().get(_ORIENTATION)
        if found is None:  # Pillow knows some spellings of XMP's
            found = _xmp_orientation(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"))
        return int(found) if found in range(1, 9) else 1
    except Exception:  # noqa: BLE001 EXIF and XMP are written by whoever likes to
        return 1


def _xmp_orientation(packet: bytes | str | None) -> int:
    data = packet.encode("utf-8", "replace") if isinstance(packet, str) else packet or b""
    prefix = _TIFF_PREFIX.search(data)
    name = re.escape(prefix[1] if prefix else b"tiff")
    found = re.search(name + rb":Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]", data)
    return int(found[1]) if found else 1


def jpeg_orientation(data: bytes) -> int:
    """``orientation_of`` for the bytes of a JPEG; Pillow is asked only where there is metadata."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
        if data[place + 1 : place + 2] == b"\xe1":  # APP1: EXIF or XMP
            try:
                with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                    return orientation_of(image)
            except Exception:  # noqa: BLE001 see ``orientation_of``
                return 1
        if data[place + 1 : place + 2] == b"\xff":  # a fill byte
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return 1


def _decoded(
    data: bytes, check: Callable[[int, int], None], formats: tuple[str, ...]
) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=formats) as opened:
        check(*opened.size)
        check_work(data, *opened.size)
        opened.load()
        turn = _TURNS.get(orientation_of(opened))
        image = _white_behind(_eight_bits(opened)).convert("RGB")
        return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits or more as 8 bits, which Pillow's own conversion would clip."""
    if image.mode == "F":
        raise ImageError("unsupported", "pixels of floating point")
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image, np.float64)
    largest = 65535 if wide.max() <= 65535 else 2**31 - 1
    made = Image.fromarray((wide * (255 / largest)).clip(0, 255).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        made.putalpha(Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8)))
    return made


def _white_behind(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)


def _without_text(data: bytes) -> bytes:
    """A PNG without its texts and colour profile: they may be huge and its pixels whole."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] not in {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)
