"""Contact sheets and scores of a generator on held-out scenes, from the code or from captions."""

from __future__ import annotations

import argparse
import json
import logging
import textwrap
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from data.scenes.captions import LENGTHS
from data.scenes.grammar import World
from gill.backbones.embedded.denoiser import sample_latents
from gill.backbones.image_generator import new_sampler
from tasks.embedded_training.autoencoder import load_autoencoder
from tasks.embedded_training.common import FOLDER, SHIPPED
from tasks.embedded_training.generator import averaged_unet
from tasks.embedded_training.parser import (
    captions_of,
    encode_rows,
    load_text_encoder,
    new_codes,
    truth_of,
)
from tasks.embedded_training.reader import load_reader, scores_of, summary


def rows_of(folder: Path, truth: Tensor, captions: list[str] | None) -> tuple[Tensor, Tensor]:
    """Rows of scenes from their captions, or from their truth, and the rows of nothing."""
    if captions is None:
        codes = new_codes()
        return codes(truth), codes.empty()
    encoder, tokenizer = load_text_encoder(folder)
    return encode_rows(encoder, tokenizer, captions), encode_rows(encoder, tokenizer, [""])[0]


@torch.no_grad()
def images_from(
    unet: Any, vae: Any, rows: Tensor, empty: Tensor, steps: int, guidance: float
) -> Tensor:
    """Images ``(n, 3, 64, 64)`` in [-1, 1]."""
    images = []
    for at in range(0, len(rows), 64):
        part = rows[at : at + 64]
        with torch.autocast("cpu", torch.bfloat16):
            latents = sample_latents(unet, new_sampler(), part, empty, at, steps, guidance)
        images.append(vae.decode(latents).sample.float().clamp(-1, 1))
    return torch.cat(images)


def contact_sheet(images: Tensor, captions: list[str], path: Path, columns: int = 8) -> None:
    """Write images twice as large, each above its caption."""
    edge, cell, line = 128, 136, 12
    rows = -(-len(images) // columns)
    height = edge + 4 * line
    sheet = Image.new("RGB", (columns * cell, rows * (height + 6)), "white")
    draw = ImageDraw.Draw(sheet)
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    for i, (one, said) in enumerate(zip(pixels, captions, strict=True)):
        x, y = i % columns * cell, i // columns * (height + 6)
        sheet.paste(Image.fromarray(one).resize((edge, edge), Image.Resampling.NEAREST), (x, y))
        text = "\n".join(textwrap.wrap(said, 23)[:4])
        draw.multiline_text((x, y + edge + 1), text, fill="black", spacing=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> None:
    """Sample, score and draw."""
    parser = argparse.ArgumentParser(prog="python -m tasks.embedded_training.sheet")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--split", default="test_new")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--shown", type=int, default=32)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--length", choices=("mixed", *LENGTHS), default="mixed")
    parser.add_argument("--text", action="store_true", help="from captions, not from the code")
    parser.add_argument("--out", type=Path, help="where to draw a contact sheet")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    world = World(arguments.objects)
    split, count = arguments.split, arguments.count
    unet, seen = averaged_unet(arguments.checkpoint)
    vae = load_autoencoder(arguments.folder)
    length = None if arguments.length == "mixed" else arguments.length
    captions = captions_of(world, split, 0, count, length=length)
    truth = truth_of(world, split, 0, count)
    rows, empty = rows_of(arguments.folder, truth, captions if arguments.text else None)
    images = images_from(unet, vae, rows, empty, arguments.steps, arguments.guidance)
    if arguments.out:
        shown = arguments.shown
        contact_sheet(images[:shown], captions[:shown], arguments.out)
    if (arguments.folder / "reader.pt").exists() or (SHIPPED / "reader").exists():
        scenes = [world.scene(split, i) for i in range(count)]
        found = summary(scores_of(scenes, load_reader(arguments.folder).read(images)))
        print(json.dumps({"images": seen, "n": count, **vars(arguments), **found}, default=str))


if __name__ == "__main__":
    main()
