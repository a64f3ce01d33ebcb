"""The step ``parser``: text layers that turn captions into the code that the UNet is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.scenes.captions import Length, caption
from data.scenes.grammar import Split, World
from data.scenes.objects import THINGS
from data.scenes.truth import SIZES_OF_COLUMNS, UNSAID, columns, columns_of_text
from gill.backbones.embedded import generator as parts
from gill.backbones.embedded.captions import CaptionStates, ChunkOrder, caption_states
from gill.backbones.embedded.codes import TruthCodes, TruthSizes, code_accuracy, code_loss
from gill.backbones.embedded.generator import new_text_encoder
from gill.backbones.embedded.text_encoder import SceneTextEncoder, TextShape
from gill.training import Optimization, Trainer
from tasks.embedded_training.common import SHIPPED, drive, load, only_shipped

PARSER_RUN = Optimization(
    steps=2400,
    learning_rate=1e-3,
    betas=(0.9, 0.98),
    warmup_steps=100,
    schedule="trapezoid",
    precision="bfloat16",
    seed=1,
)
PARSER_BATCH, PARSER_CHUNK, PARSER_PASSES = 128, 4096, 3
EMPTY_EVERY = 50  # one caption in so many is "", from which guidance steers
COLUMN_NAMES = [
    *(f"{what}_{i}" for i in (1, 2, 3) for what in ("object", "number", "size")),
    "arrangement",
    "ground",
]


def new_codes() -> TruthCodes:
    """The fixed code of scenes."""
    return TruthCodes(TruthSizes(**SIZES_OF_COLUMNS, width=TextShape().width))


def truth_of(world: World, split: Split, start: int, count: int) -> Tensor:
    """Truth columns ``(count, 11)`` of scenes."""
    scenes = range(start, start + count)
    return torch.tensor([columns(world.scene(split, i), turn=i) for i in scenes])


def truth_of_captions(
    world: World, split: Split, start: int, captions: list[str], tokenizer: Any
) -> Tensor:
    """Truth columns of scenes, as far as captions say it before the text encoder stops reading."""
    ids = tokenizer(captions, truncation=True, max_length=TextShape().tokens)["input_ids"]
    read = tokenizer.batch_decode(ids, skip_special_tokens=True)
    scenes = (world.scene(split, start + i) for i in range(len(captions)))
    found = [columns_of_text(scene, text) for scene, text in zip(scenes, read, strict=True)]
    return torch.tensor([c if text else [UNSAID] * 11 for c, text in zip(found, read, strict=True)])


def captions_of(
    world: World,
    split: Split,
    start: int,
    count: int,
    variant: int = 0,
    length: Length | None = None,
) -> list[str]:
    """One caption of each scene."""
    scenes = range(start, start + count)
    return [caption(world.scene(split, i), split, i, variant, length) for i in scenes]


def train_parser(folder: Path) -> dict[str, float]:
    """Train the text layers to read captions of all objects; report accuracy on held-out ones."""
    world, codes = World(len(THINGS)), new_codes()
    encoder, tokenizer = new_text_encoder()

    def loss(batch: tuple[CaptionStates, Tensor]) -> dict[str, Tensor]:
        read, truth = batch
        rows = encoder.layers(read.states, read.mask)
        distance, named = code_loss(codes, rows, truth)
        return {"loss": distance + named, "distance": distance, "named": named}

    def batches(step: int) -> Iterator[tuple[CaptionStates, Tensor]]:
        order, held = ChunkOrder(PARSER_CHUNK, PARSER_BATCH, PARSER_PASSES), -1
        while True:
            chunk, rows = order.rows(step)
            if chunk != held:
                start, held = chunk * PARSER_CHUNK, chunk
                captions = captions_of(world, "train", start, PARSER_CHUNK, variant=1)
                captions[::EMPTY_EVERY] = [""] * len(captions[::EMPTY_EVERY])
                states = caption_states(encoder, tokenizer, captions)
                truth = truth_of_captions(world, "train", start, captions, tokenizer)
            yield states.rows(rows), truth[rows]
            step += 1

    trainer = Trainer(encoder.layers, loss, PARSER_RUN)
    drive(trainer, batches, folder / "parser.pt", every=100, size=lambda b: len(b[1]))
    return parser_accuracy(encoder.eval(), tokenizer, 2048)


def parser_accuracy(encoder: SceneTextEncoder, tokenizer: Any, count: int) -> dict[str, float]:
    """Accuracy of each column on captions of new compositions, and the distance to their code."""
    world, codes = World(len(THINGS)), new_codes()
    captions = captions_of(world, "test_new", 0, count)
    truth = truth_of_captions(world, "test_new", 0, captions, tokenizer)
    rows = encode_rows(encoder, tokenizer, captions)
    found = dict(zip(COLUMN_NAMES, code_accuracy(codes, rows, truth), strict=True))
    return found | {"distance": float((rows - codes(truth)).square().mean())}


@torch.no_grad()
def encode_rows(encoder: SceneTextEncoder, tokenizer: Any, captions: list[str]) -> Tensor:
    """Output of the text encoder ``(n, rows, width)`` in float32."""
    found = caption_states(encoder, tokenizer, captions)
    parts = []
    for rows in torch.arange(len(captions)).split(256):
        part = found.rows(rows)
        parts.append(encoder.layers(part.states.float(), part.mask))
    return torch.cat(parts)


def load_text_encoder(folder: Path) -> tuple[SceneTextEncoder, Any]:
    """The text encoder with trained layers, in evaluation mode, and its tokenizer."""
    if only_shipped(folder / "parser.pt", SHIPPED / "text_layers"):
        return parts.load_text_encoder(SHIPPED / "text_layers")
    encoder, tokenizer = new_text_encoder()
    encoder.layers.load_state_dict(load(folder / "parser.pt")["module"])
    return encoder.eval().requires_grad_(False), tokenizer
