"""One decoder: every road sees the same pixels, and hostile bytes are counted, not raised."""

import struct
import zlib

import numpy as np
import pytest
from hostile import encoded, random_image
from PIL import Image, PngImagePlugin

from data.download.image_codec import process
from data.download.settings import ImageRules
from data.io.image_decoder import (
    WEB_FORMATS,
    ImageError,
    any_size,
    at_most,
    decode,
    jpeg_orientation,
)


def reason(data, **options):
    with pytest.raises(ImageError) as found:
        decode(data, **options)
    return found.value.reason


def both(data):
    """Pixels of the decoder and of training's road, as numbers."""
    made = process(data, ImageRules(resize="bound", size=4096, quality=100)).data
    return [np.asarray(image, np.int32) for image in (decode(data), decode(made))]


def exif(orientation, wrong=b""):
    """EXIF with an orientation, and before it an entry whose type is wrong."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    entries = [wrong, *entries] if wrong else entries
    body = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + body


TEXT_AS_WIDTH = struct.pack("<HHI4s", 0x0100, 2, 2, b"x\0\0\0")
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><r tiff:Orientation="6"/></x:xmpmeta>'


def with_segment(jpeg, body, before=()):
    """A JPEG with APP1, after other segments."""
    segments = [(0xE2, b"\0" * n) for n in before] + [(0xE1, body)]
    parts = [bytes([0xFF, m]) + struct.pack(">H", len(b) + 2) + b for m, b in segments]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_road_turns_alike(form, orientation):
    image = random_image(96, 64)
    options = {"lossless": True} if form == "WEBP" else {"quality": 98} if form == "JPEG" else {}
    note = Image.Exif()
    note[0x0112] = orientation
    one, two = both(encoded(image, form, exif=note, **options))
    flips = [None, None, 0, 3, 1, 5, 4, 6, 2]
    flip = flips[orientation]
    expected = np.asarray(image if flip is None else image.transpose(flip), np.int32)
    assert one.shape == two.shape == expected.shape
    assert np.abs(one - expected).mean() < 3
    assert np.abs(two - expected).mean() < 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_with_wrong_types_still_turns(form):
    note = exif(6, TEXT_AS_WIDTH)
    data = encoded(form=form, exif=note[6:] if form == "PNG" else note)
    for pixels in both(data):
        assert pixels.shape == (96, 64, 3)


@pytest.mark.parametrize("cut", [7, 12, 16, 20, 25])
def test_exif_that_is_cut_turns_nothing_or_as_it_says(cut):
    for form in ("JPEG", "PNG", "WEBP"):
        note = exif(6)[:cut]
        one, two = both(encoded(form=form, exif=note[6:] if form == "PNG" else note))
        assert one.shape == two.shape


def test_orientation_in_xmp_alone_and_behind_long_segments_turns():
    plain = encoded(random_image(96, 64))
    for data in (
        with_segment(plain, XMP),
        with_segment(plain, exif(6), before=[65_000] * 3),
        with_segment(plain, XMP, before=[65_000] * 3),
    ):
        assert jpeg_orientation(data) == 6
        for pixels in both(data):
            assert pixels.shape == (96, 64, 3)
    assert jpeg_orientation(plain) == 1
    assert jpeg_orientation(plain[:4]) == 1


@pytest.mark.parametrize(
    "noted",
    [
        b'<r tiff:Orientation="6"/>', b"<r tiff:Orientation='6'/>", b'<r tiff:Orientation = "6" />',
        b"<tiff:Orientation>6</tiff:Orientation>", b"<tiff:Orientation> 6 </tiff:Orientation>",
        b'<r xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="6"/>',
    ],
)  # fmt: skip
def test_every_spelling_of_xmp_turns_on_every_road(noted):
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + noted + b"</x:xmpmeta>"
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", packet.decode())
    for data in (
        with_segment(encoded(random_image(96, 64)), b"http://ns.adobe.com/xap/1.0/\0" + packet),
        encoded(random_image(96, 64), "PNG", pnginfo=texts),
        encoded(random_image(96, 64), "WEBP", xmp=packet),
    ):
        for pixels in both(data):
            assert pixels.shape == (96, 64, 3)


@pytest.mark.parametrize("noted", [b'<r tiff:Orientation="up"/>', b'<r my:Orientation="6"/>', b""])
def test_what_is_no_orientation_of_xmp_turns_nothing(noted):
    body = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + noted + b"</x:xmpmeta>"
    for pixels in both(with_segment(encoded(random_image(96, 64)), body)):
        assert pixels.shape == (64, 96, 3)


@pytest.mark.parametrize("magic", [b"II+\0\x08\0\0\0\x10", b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10"])
def test_a_header_of_bigtiff_in_exif_turns_nothing(magic):
    for form in ("JPEG", "PNG", "WEBP"):
        note = magic + bytes(60)
        data = encoded(form=form, exif=note if form == "PNG" else b"Exif\0\0" + note)
        for pixels in both(data):
            assert pixels.shape == (64, 96, 3)
    assert decode(encoded(form="TIFF", big_tiff=True)).size == (96, 64)


def test_sixteen_bits_are_scaled_and_one_of_them_may_be_clear():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, 0)
    expected = (ramp / 257).round()
    for form in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(ramp), form)
        assert np.abs(np.asarray(decode(data), np.int32)[..., 0] - expected).max() == 0
    one, two = both(encoded(Image.fromarray(ramp), "PNG"))
    assert np.abs(one - two).max() <= 1
    png = encoded(Image.fromarray(np.full((64, 64), 300, np.uint16)), "PNG")
    note = b"tRNS" + struct.pack(">H", 300)
    chunk = struct.pack(">I", 2) + note + struct.pack(">I", zlib.crc32(note))
    assert decode(png[:33] + chunk + png[33:]).getpixel((3, 3)) == (255, 255, 255)
    assert reason(encoded(Image.new("F", (64, 64)), "TIFF")) == "unsupported"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_white_lies_behind_what_is_clear(mode):
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 32, 64))
    data = encoded(image.convert("LA") if mode == "LA" else image, "GIF" if mode == "P" else "PNG")
    for pixels in both(data):
        assert pixels[32, 60].min() > 250
        assert pixels[32, 4].min() < 100


def test_the_first_frame_counts():
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert decode(data).getpixel((9, 9))[0] > 240


def test_a_png_with_huge_texts_keeps_its_pixels():
    image, texts = random_image(64, 64), PngImagePlugin.PngInfo()
    texts.add_text("comment", "x" * (3 << 20), zip=True)
    profile = zlib.compress(bytes(3 << 20))
    for data in (encoded(image, "PNG", pnginfo=texts), encoded(image, "PNG", icc_profile=profile)):
        for pixels in both(data):
            assert np.abs(pixels - np.asarray(image, np.int32)).mean() < 3
    huge = encoded(image, "PNG", icc_profile=bytes(3 << 20))
    assert np.array_equal(decode(huge), image)


def test_bytes_that_cost_too_much_are_refused_at_once():
    flat = encoded(Image.new("RGB", (4000, 4000)), "WEBP", lossless=True, quality=0, method=0)
    assert len(flat) < 1600
    assert reason(flat, check=any_size) == "too_many_pixels"
    scans = encoded(random_image(1200, 1200), progressive=True)
    at = scans.index(b"\xff\xda")
    many = scans[:at] + scans[at:-2] * 100 + scans[-2:]
    assert reason(many) == "too_many_scans"
    with pytest.raises(ImageError, match="too_many_scans"):
        process(many, ImageRules(resize="crop", size=48))
    assert decode(scans).size == (1200, 1200)
    # White pixels in one bit are as small as PNG can be, and are an image.
    assert decode(encoded(Image.new("1", (3000, 3000), 1), "PNG")).size == (3000, 3000)


def test_sizes_are_checked_before_pixels_are_decoded(monkeypatch):
    data = encoded(random_image(100, 50), "PNG")
    assert decode(data, at_most(5000)).size == (100, 50)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert reason(data, check=at_most(4999)) == "too_many_pixels"


def test_what_is_no_image_or_of_another_kind_is_named():
    assert reason(b"<html>") == "not_image:html"
    assert reason(b"") == "not_image:empty"
    assert reason(encoded(form="TIFF"), formats=WEB_FORMATS) == "unsupported"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n") == "not_image:text"
    for form in ("BMP", "TIFF", "AVIF", "JPEG2000", "PPM"):
        assert decode(encoded(form=form)).size == (96, 64)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_any_damage_is_a_counted_refusal_or_an_image(form):
    """Cut and changed bytes never raise anything else, whatever the library's plugins do."""
    note = {"exif": exif(6)} if form in {"JPEG", "WEBP"} else {}
    whole = encoded(random_image(64, 48), form, **note)
    chance = np.random.default_rng(0)
    refused = set()
    for _ in range(150):
        data = bytearray(whole)
        if chance.random() < 0.3:
            del data[chance.integers(1, len(data)) :]
        for place in chance.integers(0, min(len(data), 400), 3):
            data[place] = chance.integers(0, 256)
        try:
            assert decode(bytes(data)).mode == "RGB"
        except ImageError as error:
            refused.add(error.reason.partition(":")[0])
    known = {"not_image", "unsupported", "too_many_pixels", "truncated", "corrupt"}
    assert refused
    assert refused <= known
    assert reason(whole[: len(whole) // 2]) in {"truncated", "corrupt"}
