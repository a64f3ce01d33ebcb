"""Paints scenes with integers: the same bytes on every machine and library version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.scenes.grammar import CELL, CELLS, GROUNDS, SIZES, Scene
from data.scenes.objects import THINGS

EDGE = CELL * CELLS  # pixels
SHEET = Path(__file__).parent / "sprites.webp"
PER_ROW = 8  # objects in a row of the sheet
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (250, 250, 250),
    "gray": (150, 150, 155),
    "black": (22, 22, 26),
    "red": (214, 48, 52),
    "yellow": (250, 214, 70),
    "green": (84, 176, 92),
    "blue": (74, 128, 228),
    "purple": (134, 78, 190),
    "pink": (246, 168, 200),
    "brown": (128, 86, 56),
}


def sprite_corner(number: int, size: str) -> tuple[int, int]:
    """Left upper corner (x, y) of an object's sprite on the sheet, in pixels."""
    widths = [cells * CELL for cells in SIZES.values()]
    before = sum(widths[: list(SIZES).index(size)])
    row, column = divmod(number, PER_ROW)
    return column * sum(widths) + before, row * max(widths)


@cache
def _sprites() -> dict[tuple[str, str], tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]]:
    """Colour times opacity, and 255 - opacity, of each (name, size), each ``(edge, edge, 3)``."""
    from PIL import Image

    with Image.open(SHEET) as opened:
        sheet = np.asarray(opened.convert("RGBA"))
    found = {}
    for number, thing in enumerate(THINGS):
        for size, cells in SIZES.items():
            x, y = sprite_corner(number, size)
            cut = sheet[y : y + cells * CELL, x : x + cells * CELL].astype(np.uint16)
            clear = np.repeat(255 - cut[..., 3:], 3, axis=2)
            found[thing.name, size] = (np.ascontiguousarray(cut[..., :3]) * 255 + 127, clear)
    return found


def _fade(top: Colour, bottom: Colour, rows: int) -> Pixels:
    """Rows from one colour to another: ``(rows, EDGE, 3)``."""
    steps = np.arange(rows, dtype=np.int64)[:, None]
    last = max(1, rows - 1)
    column = (np.array(top) * (last - steps) + np.array(bottom) * steps) // last
    return np.repeat(column[:, None, :], EDGE, axis=1).astype(np.uint8)


STARS = ((5, 4), (14, 11), (23, 3), (30, 16), (41, 7), (50, 13), (58, 4), (9, 22), (19, 29),
         (36, 26), (47, 31), (60, 23), (28, 9), (55, 34), (3, 33))  # fmt: skip
BUBBLES = ((8, 10), (9, 24), (52, 14), (53, 30), (30, 6), (44, 46), (16, 40), (58, 52), (24, 56))


# Bands from top to bottom: rows, colour at the top, colour at the bottom.
Band = tuple[int, Colour, Colour]
BANDS: dict[str, tuple[Band, ...]] = {
    "meadow": ((40, (120, 190, 250), (206, 234, 255)), (24, (110, 190, 80), (62, 140, 52))),
    "beach": ((32, (96, 180, 250), (190, 230, 255)), (8, (38, 130, 200), (70, 180, 214)),
              (24, (244, 224, 160), (222, 190, 116))),
    "snow": ((40, (168, 192, 222), (214, 226, 242)), (24, (255, 255, 255), (228, 234, 246))),
    "desert": ((40, (255, 206, 130), (255, 240, 206)), (24, (216, 148, 78), (180, 104, 46))),
    "street": ((40, (176, 206, 240), (222, 232, 244)), (24, (98, 98, 104), (62, 62, 68))),
    "deep sea": ((64, (22, 116, 176), (6, 26, 86)),),
    "sunset": ((40, (104, 58, 140), (255, 156, 66)), (24, (76, 40, 66), (36, 20, 42))),
    "night": ((40, (10, 14, 46), (40, 50, 104)), (24, (26, 40, 44), (12, 20, 26))),
}  # fmt: skip
ROAD_MARKS = [(x + i, y) for x in (2, 24, 46) for i in range(14) for y in (51, 52)]
DETAILS: dict[str, tuple[Sequence[tuple[int, int]], Colour]] = {
    "street": (ROAD_MARKS, (240, 240, 232)),
    "deep sea": (BUBBLES, (150, 214, 240)),
    "night": (STARS, (250, 246, 210)),
}


@cache
def ground_image(ground: str) -> Pixels:
    """An empty ground ``(EDGE, EDGE, 3)``; do not write into it.

    Raises:
        ValueError: there is no such ground.
    """
    if ground in COLOURS:
        return np.broadcast_to(np.array(COLOURS[ground], np.uint8), (EDGE, EDGE, 3)).copy()
    if ground not in BANDS:
        raise ValueError(f"the ground is {ground!r}; use one of {', '.join(GROUNDS)}")
    image = np.concatenate([_fade(top, bottom, rows) for rows, top, bottom in BANDS[ground]])
    points, colour = DETAILS.get(ground, ((), (0, 0, 0)))
    for x, y in points:
        image[y, x] = colour
    return image


def paint(scene: Scene, out: Pixels | None = None) -> Pixels:
    """Paint one scene: ``(EDGE, EDGE, 3)`` uint8.

    Args:
        out: where to paint, or None for a new array.
    """
    image = np.empty((EDGE, EDGE, 3), np.uint8) if out is None else out
    image[:] = ground_image(scene.ground)
    sprites = _sprites()
    for group in scene.groups:
        colour, clear = sprites[group.name, group.size]
        edge = len(colour)
        for column, row in group.places:
            x, y = column * CELL, row * CELL
            view = image[y : y + edge, x : x + edge]
            # (255 * colour + clear * behind + 127) // 255 never leaves 16 bits.
            view[:] = (view * clear + colour) // 255
    return image


def paint_all(scenes: Sequence[Scene]) -> Pixels:
    """Paint scenes: ``(n, EDGE, EDGE, 3)`` uint8."""
    images = np.empty((len(scenes), EDGE, EDGE, 3), np.uint8)
    for image, scene in zip(images, scenes, strict=True):
        paint(scene, image)
    return images
