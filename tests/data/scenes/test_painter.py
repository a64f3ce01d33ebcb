import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from data.scenes.grammar import CELL, GROUNDS, SIZES, Group, Scene, World
from data.scenes.objects import THINGS
from data.scenes.painter import SHEET, ground_image, paint, paint_all, sprite_corner

# Made once; the same on Python 3.11 and 3.13, Pillow 11 and 12, numpy 2.0 and 2.3.
CHECKSUM = "cd1f10e2e7bde79eeaf7607327fd6b75868055267b4993dd1b57e92cd3cf8a21"


def test_a_thousand_scenes_have_the_bytes_they_always_had():
    world = World(len(THINGS))
    scenes = [world.scene(split, i) for split in ("train", "test_new") for i in range(500)]
    assert hashlib.sha256(paint_all(scenes).tobytes()).hexdigest() == CHECKSUM


def test_the_sheet_is_the_one_described():
    described = json.loads((SHEET.parent / "sprites.json").read_text())
    with Image.open(SHEET) as opened:
        pixels = np.asarray(opened.convert("RGBA"))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == described["pixels_sha256"]
    assert list(described["sprites"]) == [thing.name for thing in THINGS]
    assert SHEET.stat().st_size <= 2 << 20


def test_paint_equals_plain_composition():
    sheet = np.asarray(Image.open(SHEET).convert("RGBA")).astype(int)
    number, size = 3, "large"
    scene = Scene((Group(THINGS[number].name, 1, size, ((2, 1),)),), "", "", "beach")
    expected = ground_image("beach").astype(int)
    x0, y0 = sprite_corner(number, size)
    for y in range(SIZES[size] * CELL):
        for x in range(SIZES[size] * CELL):
            *colour, alpha = sheet[y0 + y, x0 + x]
            behind = expected[CELL + y, 2 * CELL + x]
            blended = (np.array(colour) * 255 + (255 - alpha) * behind + 127) // 255
            expected[CELL + y, 2 * CELL + x] = blended
    assert (paint(scene) == expected).all()


def test_grounds_differ_and_are_not_painted_over():
    world = World()
    before = [ground_image(g).copy() for g in GROUNDS]
    paint_all([world.scene("train", i) for i in range(50)])
    assert all((ground_image(g) == b).all() for g, b in zip(GROUNDS, before, strict=True))
    assert len({b.tobytes() for b in before}) == len(GROUNDS)
    with pytest.raises(ValueError, match="'moon'"):
        ground_image("moon")
