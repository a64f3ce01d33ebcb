"""Build the sheet of sprites from two npm packages.

The sheet is committed, so users never run this. To rebuild it, unpack (not install)

    npm  @lobehub/fluent-emoji-3d   into  SOURCE/emoji       (tar xzf)
    npm  emojibase-data             into  SOURCE/emojidata   (tar xzf)

and run ``python -m data.scenes.build_sprites SOURCE``. Sprites are resized here, once, to exactly
the sizes at which they are used, and their colours are multiplied with their opacity: painting then
needs integers only, and a later version of the image library cannot change a scene.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from data.scenes.grammar import CELL, SIZES
from data.scenes.objects import THINGS, Thing
from data.scenes.painter import PER_ROW, SHEET, sprite_corner

MARGIN = 1  # pixels of clear space at each edge of a sprite


def image_paths(source: Path) -> dict[str, Path]:
    """Emoji files by their lower-case label."""
    assets = source / "emoji/package/assets"
    found = {}
    for entry in json.loads((source / "emojidata/package/en/data.json").read_text()):
        code = entry["hexcode"].lower()
        for name in (code, code.replace("-fe0f", ""), f"{code}-fe0f"):
            if (assets / f"{name}.webp").exists():
                found[entry["label"].lower()] = assets / f"{name}.webp"
                break
    return found


def sprite(path: Path, edge: int) -> np.ndarray:
    """Cut an emoji to its shape, fit it into a square: ``(edge, edge, 4)`` uint8, premultiplied."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox())
    rgba = np.asarray(image, dtype=np.float64)
    rgba[..., :3] *= rgba[..., 3:] / 255
    room = edge - 2 * MARGIN
    scale = room / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    planes = [
        np.asarray(
            Image.fromarray(rgba[..., c].astype(np.float32)).resize(size, Image.Resampling.LANCZOS)
        )
        for c in range(4)
    ]
    fitted = np.clip(np.rint(np.stack(planes, -1)), 0, 255)
    fitted[..., :3] = np.minimum(fitted[..., :3], fitted[..., 3:])
    canvas = np.zeros((edge, edge, 4), np.uint8)
    x, y = (edge - size[0]) // 2, (edge - size[1]) // 2
    canvas[y : y + size[1], x : x + size[0]] = fitted.astype(np.uint8)
    return canvas


def build(source: Path, out: Path) -> dict[str, object]:
    """Write the sheet and its description into ``out`` and return the description."""
    paths = image_paths(source)
    missing = [t.name for t in THINGS if t.emoji.lower() not in paths]
    if missing:
        raise FileNotFoundError(f"no emoji for {missing}; labels are those of emojibase-data")
    edges = [cells * CELL for cells in SIZES.values()]
    rows = -(-len(THINGS) // PER_ROW)
    sheet = np.zeros((rows * max(edges), PER_ROW * sum(edges), 4), np.uint8)
    for number, thing in enumerate(THINGS):
        for size, cells in SIZES.items():
            x, y = sprite_corner(number, size)
            edge = cells * CELL
            sheet[y : y + edge, x : x + edge] = sprite(paths[thing.emoji.lower()], edge)
    path = out / SHEET.name
    Image.fromarray(sheet, "RGBA").save(path, "WEBP", lossless=True, exact=True, quality=100)
    described = describe(path, paths)
    (out / "sprites.json").write_text(json.dumps(described, indent=1) + "\n")
    return described


def describe(sheet: Path, paths: dict[str, Path]) -> dict[str, object]:
    """What the sheet holds and where each sprite is from."""

    def origin(thing: Thing) -> str:
        return f"npm:@lobehub/fluent-emoji-3d/assets/{paths[thing.emoji.lower()].name}"

    with Image.open(sheet) as opened:
        pixels = np.asarray(opened.convert("RGBA"))
    return {
        "sprites": {thing.name: origin(thing) for thing in THINGS},
        "sizes": {size: cells * CELL for size, cells in SIZES.items()},
        "bytes": sheet.stat().st_size,
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "made_from": ["@lobehub/fluent-emoji-3d 1.1.0", "emojibase-data 17.0.0"],
        "creator": "Microsoft Fluent Emoji, packaged by LobeHub",
        "licence": "MIT",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=SHEET.parent)
    arguments = parser.parse_args()
    print(json.dumps({k: v for k, v in build(arguments.source, arguments.out).items()
                      if k != "sprites"}, indent=1))  # fmt: skip
