"""Images and files of contexts."""

import io
import os

import pytest
from PIL import Image

from data.benchmarks.contexts import (
    ContextError,
    ContextImage,
    images_in,
    read_json,
    story_contexts,
    usable_image,
)
from data.benchmarks.skips import UnusableError
from data.io.image_decoder import ImageError


def test_images_are_found_by_name_and_a_macs_notes_are_none(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "d.jpg").mkdir()
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    os.symlink(tmp_path, tmp_path / "a" / "again")
    for name in ("a/1.jpg", "._1.jpg", "a/._2.jpg", "2.PNG"):
        (tmp_path / name).write_bytes(b"x")
    assert set(images_in(tmp_path)) == {"1", "2"}
    with pytest.raises(ContextError, match="there are no images in"):
        images_in(tmp_path / "absent")


@pytest.mark.parametrize("data", [b"{", b"[" * 200_000, b"\xff", b""])
def test_what_is_no_json_is_said(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ContextError, match="is no JSON"):
        read_json(tmp_path / "x.json", "the stories")


def test_numbers_of_any_length_and_a_mark_of_byte_order_are_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf[1, " + b"9" * 5000 + b"]")
    assert read_json(tmp_path / "x.json", "the stories") == [1, "9" * 5000]


def test_images_that_cannot_be_used(tmp_path):
    held = io.BytesIO()
    Image.effect_noise((20, 20), 60).save(held, "PNG")
    whole = ContextImage("whole", data=held.getvalue())
    assert whole.open().mode == "RGB"
    (tmp_path / "whole.png").write_bytes(held.getvalue())
    assert usable_image("whole", tmp_path / "whole.png").open().mode == "RGB"
    # The header is whole and the pixels are cut.
    (tmp_path / "cut.png").write_bytes(held.getvalue()[:-30])
    Image.new("1", (8000, 8000)).save(tmp_path / "huge.png")
    for name, reason in (
        ("none", "missing"),
        ("cut", "truncated"),
        ("huge", "too_many_pixels"),
    ):
        path = tmp_path / f"{name}.png"
        with pytest.raises(UnusableError) as found:
            usable_image(name, path if path.exists() else None)
        assert found.value.reason == f"image: {reason}"
    with pytest.raises(ImageError, match="not_image:text"):
        ContextImage("none", data=b"none").open()


def test_a_story_has_a_image_before_each_sentence_but_the_last():
    images = [ContextImage(str(i)) for i in range(3)]
    found = story_contexts(["a", "b", "c"], images)
    assert found["3 captions, 2 images"] == (images[0], "a", images[1], "b", "c")
