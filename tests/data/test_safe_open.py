"""Image files of users: turned upright, and refused with a reason where they are none."""

import pytest
from PIL import Image

from data.safe_open import ImageFileError, open_image


def test_a_image_is_upright_and_rgb(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    image.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    opened = open_image(tmp_path / "turned.png")
    assert opened.size == (10, 20)
    assert opened.getpixel((9, 0)) == (0, 0, 255)
    Image.new("LA", (4, 4), (7, 200)).save(tmp_path / "grey.png")
    assert open_image(tmp_path / "grey.png").mode == "RGB"


def test_files_that_are_no_images_are_refused_with_a_reason(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    Image.new("RGB", (300, 300), "red").save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    for name, reason in {
        "none.png": "missing",
        ".": "folder",
        "text.png": "not_image:text",
        "short.jpg": "truncated",
        "whole.jpg": "too_many_pixels",
    }.items():
        with pytest.raises(ImageFileError) as caught:
            open_image(tmp_path / name, most_pixels=89_999 if name == "whole.jpg" else 90_000)
        assert caught.value.reason == reason
        assert str(tmp_path / name) in str(caught.value)


def test_a_giant_is_refused_before_it_is_decoded(tmp_path):
    # 8,000 x 8,000 white pixels in some kB.
    Image.new("1", (8_000, 8_000), 1).save(tmp_path / "giant.png")
    with pytest.raises(ImageFileError, match="too large") as caught:
        open_image(tmp_path / "giant.png")
    assert caught.value.reason == "too_many_pixels"
