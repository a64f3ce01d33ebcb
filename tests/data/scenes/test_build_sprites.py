"""The sheet of sprites from a folder of emoji: cut, fitted, premultiplied and described."""

import json

import numpy as np
import pytest
from PIL import Image

from data.scenes.build_sprites import MARGIN, build, image_paths, sprite
from data.scenes.grammar import CELL, SIZES
from data.scenes.objects import THINGS
from data.scenes.painter import sprite_corner


def emoji(path, size=(40, 40), box=(10, 5, 30, 35), colour=(200, 100, 50, 255)):
    """A filled box on clear ground."""
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    image.paste(colour, box)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "WEBP", lossless=True, exact=True)


def test_an_emoji_is_cut_to_its_shape_and_fills_its_square(tmp_path):
    emoji(tmp_path / "a.webp")  # 20 wide, 30 high
    found = sprite(tmp_path / "a.webp", 32)
    opaque = found[..., 3] > 127
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    assert (rows[0], rows[-1]) == (MARGIN, 32 - MARGIN - 1)  # as high as there is room
    assert len(columns) == 20  # 30 * 20 / 30
    assert columns[0] + columns[-1] == 31  # in the middle
    assert found[16, 16].tolist() == [200, 100, 50, 255]


def test_colours_are_multiplied_with_the_opacity(tmp_path):
    emoji(tmp_path / "a.webp", colour=(200, 100, 50, 128))
    found = sprite(tmp_path / "a.webp", 32)
    assert found[16, 16].tolist() == [100, 50, 25, 128]
    assert (found[..., :3] <= found[..., 3:]).all()  # what painting in integers rests on


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The two packages, with an emoji of its own colour for every thing."""
    folder = tmp_path_factory.mktemp("source")
    listed = []
    for number, thing in enumerate(THINGS):
        # Some codes come with a variation selector in the list and without it as a file.
        code, suffix = f"{0x1F400 + number:X}", "-FE0F" if number % 2 else ""
        listed.append({"label": thing.emoji.capitalize(), "hexcode": code + suffix})
        path = folder / "emoji" / "package" / "assets" / f"{code.lower()}.webp"
        emoji(path, (12, 12), (1, 1, 11, 11), (2 * number, 255 - number, number, 255))
    listed.append({"label": "flag of nowhere", "hexcode": "1F1E6"})
    path = folder / "emojidata" / "package" / "en" / "data.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(listed))
    return folder


def test_every_thing_stands_where_the_painter_looks_for_it(source, tmp_path):
    described = build(source, tmp_path)
    assert json.loads((tmp_path / "sprites.json").read_text()) == described
    assert list(described["sprites"]) == [thing.name for thing in THINGS]
    assert described["sizes"] == {size: cells * CELL for size, cells in SIZES.items()}
    with Image.open(tmp_path / "sprites.webp") as opened:
        sheet = np.asarray(opened.convert("RGBA"))
    for number in (0, 1, len(THINGS) - 1):
        for size, cells in SIZES.items():
            x, y = sprite_corner(number, size)
            middle = cells * CELL // 2
            assert sheet[y + middle, x + middle].tolist() == [2 * number, 255 - number, number, 255]


def test_labels_without_a_file_are_left_out(source):
    assert "flag of nowhere" not in image_paths(source)
    assert len(image_paths(source)) == len(THINGS)


def test_a_thing_without_an_emoji_is_named(source, tmp_path):
    path = image_paths(source)[THINGS[3].emoji.lower()]
    moved = path.rename(tmp_path / "moved.webp")
    try:
        with pytest.raises(
            FileNotFoundError, match=rf"no emoji for \['{THINGS[3].name}'\]; labels"
        ):
            build(source, tmp_path)
    finally:
        moved.rename(path)
