"""Contexts of stories, and images that cannot be used."""

import io

import pytest
from PIL import Image

from data.benchmarks.contexts import ContextImage, story_contexts, unusable
from data.io.image_decoder import ImageError


def test_images_that_cannot_be_used(tmp_path):
    held = io.BytesIO()
    Image.effect_noise((20, 20), 60).save(held, "PNG")
    whole = ContextImage("whole", data=held.getvalue())
    assert whole.open().mode == "RGB"
    assert unusable([whole]) is None
    assert unusable([whole, None]) == "image: missing"
    # The header is whole and the pixels are cut.
    assert unusable([whole, ContextImage("cut", data=held.getvalue()[:-30])]) == "image: truncated"
    huge = Image.new("1", (8000, 8000))
    huge.save(tmp_path / "huge.png")
    assert unusable([ContextImage("huge", tmp_path / "huge.png")]) == "image: too_many_pixels"
    with pytest.raises(ImageError, match="not_image:text"):
        ContextImage("none", data=b"none").open()


def test_a_story_has_a_image_before_each_sentence_but_the_last():
    images = [ContextImage(str(i)) for i in range(3)]
    found = story_contexts(["a", "b", "c"], images)
    assert found["3 captions, 2 images"] == (images[0], "a", images[1], "b", "c")
