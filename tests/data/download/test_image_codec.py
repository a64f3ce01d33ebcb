"""What is taken as an image, what is made of it, and the reason for each refusal."""

import io
import struct
import zlib

import numpy as np
import pytest
from hostile import encoded, random_image
from PIL import Image

from data.download.image_codec import process
from data.download.settings import ImageRules
from data.io.image_decoder import ImageError, kind_of

SMALL = ImageRules(resize="crop", size=48)


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image, np.int32)


def reason(data, rules=SMALL):
    with pytest.raises(ImageError) as found:
        process(data, rules)
    return found.value.reason


def plain(image, size):
    """The centre square of an image at a size, the slow and obvious way."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BOX), np.int32)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (400, 300), (301, 207), (48, 48), (40, 90)])
def test_a_crop_is_the_centre_square(size):
    image = random_image(*size)
    made = process(encoded(image, quality=98), SMALL)
    assert (made.width, made.height) == (48, 48)
    assert (made.original_width, made.original_height) == size
    assert np.abs(pixels(made.data) - plain(image, 48)).mean() < 5


def test_bound_keeps_the_ratio_and_never_enlarges():
    rules = ImageRules(resize="bound", size=48)
    made = process(encoded(random_image(300, 96)), rules)
    assert (made.width, made.height) == (150, 48)
    made = process(encoded(random_image(60, 40)), rules)
    assert (made.width, made.height) == (60, 40)


def test_original_bytes_are_kept_after_a_check():
    rules = ImageRules(resize="original")
    for form in ("JPEG", "PNG", "WEBP"):
        data = encoded(form=form)
        assert process(data, rules).data == data
    assert reason(encoded(random_image(600, 400))[:-3000], rules) == "truncated"


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [("JPEG", "L", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"progressive": True}),
     ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "P", {}), ("GIF", "P", {}),
     ("WEBP", "RGB", {}), ("PNG", "LA", {}), ("PNG", "RGBA", {})],
)  # fmt: skip
def test_every_common_form_becomes_rgb(form, mode, options):
    image = random_image(90, 90, mode)
    made = process(encoded(image, form, **options), SMALL)
    expected = plain(image.convert("RGB"), 48)
    assert np.abs(pixels(made.data) - expected).mean() < (12 if mode == "P" else 6)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(64, 0)
    found = pixels(
        process(encoded(Image.fromarray(ramp), "PNG"), ImageRules(resize="crop", size=64)).data
    )
    assert np.abs(found[32, :, 0] - ramp[32] / 257).max() < 6


def test_white_lies_behind_what_is_transparent():
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    for image, form in ((clear, "PNG"), (clear, "WEBP")):
        assert pixels(process(encoded(image, form), SMALL).data).min() > 250
    grey = Image.new("LA", (64, 64), (0, 0))
    assert pixels(process(encoded(grey, "PNG"), SMALL).data).min() > 250


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        red, _, blue = pixels(process(data, SMALL).data).mean((0, 1))
        assert red > 200 > 60 > blue


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_turns_the_image_upright(orientation, form):
    image = random_image(96, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, form, exif=exif, **({"quality": 98} if form == "JPEG" else {}))
    turned = image
    for flip in {2: [0], 3: [3], 4: [1], 5: [5], 6: [4], 7: [6], 8: [2]}.get(orientation, []):
        turned = image.transpose(flip)
    made = process(data, SMALL)
    assert (made.original_width, made.original_height) == turned.size
    assert np.abs(pixels(made.data) - plain(turned, 48)).mean() < 4


def odd_exif(orientation):
    """EXIF whose ImageWidth is text, which Pillow cannot write again, beside an orientation."""
    width = struct.pack("<HHI4s", 0x0100, 2, 2, b"x\0\0\0")
    turn = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + width + turn + bytes(4)


@pytest.mark.parametrize("form", ["JPEG", "CMYK", "PNG", "WEBP"])
def test_an_odd_exif_tag_costs_no_picture_and_no_turn(form):
    image = random_image(mode="CMYK" if form == "CMYK" else "RGB")
    exif = odd_exif(6)[6:] if form == "PNG" else odd_exif(6)
    data = encoded(image, "JPEG" if form == "CMYK" else form, exif=exif)
    made = process(data, ImageRules(resize="bound", size=96))
    assert (made.original_width, made.original_height) == (made.width, made.height) == (64, 96)
    turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    assert np.abs(pixels(made.data) - np.asarray(turned, np.int32)).mean() < 12


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"II*\0\xff\xff\xff\xff", b"II+\0\x08\0\0\0", b"II*\0\x08\0\0\0\xff\xff\1", b"no EXIF"]
)
def test_exif_that_cannot_be_read_turns_nothing(form, exif):
    data = encoded(form=form, exif=b"Exif\0\0" + exif if form != "PNG" else exif)
    made = process(data, ImageRules(resize="bound", size=96))
    assert (made.width, made.height) == (96, 64)


def test_whatever_a_decoder_raises_is_a_corrupt_picture(monkeypatch):
    def broken(*_, **__):
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(Image, "open", broken)
    assert reason(encoded(form="PNG")) == "corrupt"


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"<!DOCTYPE html><p>gone", "html"), (b" \n<HTML>", "html"), (b"", "empty"),
     (b"  \n", "empty"), (b"<?xml version='1.0'?><svg xmlns='x'/>", "svg"), (b"<svg/>", "svg"),
     (b"{}", "json"),
     (b"\x00\x00\x01\x00\x01\x00", "ico"), (b"not found", "text"), (b"%PDF-1.4", "pdf"),
     (b"<error/>", "xml"), (b"\x00\x01\x02", "unknown"), (b"\x1f\x8b\x08", "gzip")],
)  # fmt: skip
def test_what_is_no_image_is_named_by_its_bytes(data, kind):
    assert kind_of(data) == kind
    assert reason(data) == f"not_image:{kind}"


def test_formats_that_are_not_taken():
    for form in ("TIFF", "BMP", "AVIF"):
        assert reason(encoded(form=form)) == "unsupported"


def test_a_truncated_file_is_refused():
    image = random_image(600, 400)
    for form in ("JPEG", "PNG", "WEBP"):
        data = encoded(image, form)
        found = reason(data[: len(data) * 2 // 3])
        assert found in ({"truncated"} if form != "WEBP" else {"truncated", "corrupt"})


def test_a_jpeg_with_warnings_goes_through_pillow_or_is_corrupt():
    data = encoded(random_image(200, 200), quality=90)
    with_junk = data[:-2] + b"\x00junk before the end\xff\xd9"
    assert process(with_junk, SMALL).width == 48
    assert reason(data[:300] + bytes(400)) in {"corrupt", "truncated"}
    assert reason(b"\xff\xd8\xff\xe0" + bytes(100)) in {"corrupt", "truncated"}


def png_header(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_a_pixel_bomb_is_refused_before_decoding():
    assert reason(png_header(20_000, 20_000)) == "too_many_pixels"
    assert reason(png_header(300_000, 300_000)) == "too_many_pixels"
    large = bytearray(encoded(random_image(64, 64)))
    at = large.index(b"\xff\xc0")
    large[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    assert reason(bytes(large)) == "too_many_pixels"


def test_too_small_and_too_narrow():
    assert reason(encoded(random_image(31, 400))) == "too_small"
    assert reason(encoded(random_image(33, 400))) == "bad_aspect"
    assert reason(encoded(random_image(31, 31), "PNG")) == "too_small"
