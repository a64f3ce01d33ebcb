"""The step ``heads``: image-text heads on scenes and drawings, with pooled or quadrant features."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from data.scenes.captions import describe
from data.scenes.contrasts import FACTORS, contrast
from data.scenes.grammar import Scene, World
from data.scenes.painter import paint_all
from data.scenes.randomness import Draws
from data.sources.embedded_pack import EmbeddedPack
from gill.backbones import vision
from gill.backbones.embedded.heads import (
    Pooling,
    ProjectionHeads,
    batch_indices,
    heads_trainer,
    image_features,
)
from gill.evaluation.retrieval import recall
from gill.training import Optimization
from tasks.embedded_training.common import drive, save
from tasks.embedded_training.parser import encode_rows, load_text_encoder

logger = logging.getLogger("gill.backbones")

HEADS_RUN = Optimization(
    steps=900, weight_decay=0.1, warmup_steps=50, schedule="cosine", gradient_clip=1.0
)
HEADS_BATCH, HEADS_NOISE = 512, 0.3
SCENES, TESTED = 12_000, 1_000
POOLINGS: tuple[Pooling, ...] = ("pooled", "quadrants")
MEAN_ONLY = 384  # columns of the text features that are MiniLM's mean
# What heads are trained on: image features, and so many columns of the text features.
VARIANTS: tuple[tuple[Pooling, int | None], ...] = (
    ("pooled", MEAN_ONLY), ("quadrants", MEAN_ONLY), ("pooled", None), ("quadrants", None)
)  # fmt: skip


@dataclass(frozen=True)
class Features:
    """Image features by kind of pooling, each ``(n, width)``, and text features.

    Text features are MiniLM's mean state, then the rows of the generator's text encoder.
    """

    image: dict[Pooling, Tensor]
    text: Tensor


class Extractor:
    """EfficientNet, MiniLM and the generator's text layers, frozen."""

    def __init__(self, folder: Path) -> None:
        self.encoder = vision.load_embedded(None)
        self.text_encoder, self.tokenizer = load_text_encoder(folder)

    def images(self, images: Tensor) -> dict[Pooling, Tensor]:
        """Features of uint8 images ``(n, 3, h, w)``."""
        parts: dict[Pooling, list[Tensor]] = {p: [] for p in POOLINGS}
        for part in images.split(64):
            pixels = self.encoder.prepare_tensor(part.float() / 255)
            with torch.autocast("cpu", torch.bfloat16):
                found = image_features(self.encoder.model.visual.trunk, pixels)
            for pooling, value in found.items():
                parts[pooling].append(value)
        return {pooling: torch.cat(found) for pooling, found in parts.items()}

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        """Mean states of MiniLM ``(n, 384)`` beside the text encoder's rows ``(n, 1280)``."""
        tower, parts = self.encoder.model.text, []
        for start in range(0, len(captions), 128):
            tokens = self.encoder.tokenizer(list(captions[start : start + 128]))
            tokens = tokens[:, : int((tokens != tower.config.pad_token_id).sum(1).max())]
            mask = (tokens != tower.config.pad_token_id).long()
            with torch.autocast("cpu", torch.bfloat16):
                states = tower.transformer(tokens, attention_mask=mask)
            parts.append(tower.pooler(states, mask).float())
        rows = encode_rows(self.text_encoder, self.tokenizer, list(captions)).flatten(1)
        return torch.cat([torch.cat(parts), rows], dim=1)

    def scenes(self, scenes: Sequence[Scene], seed: int) -> Features:
        """Features of scenes with a phrase or a sentence each."""
        pixels = torch.from_numpy(paint_all(scenes)).permute(0, 3, 1, 2)
        return Features(self.images(pixels), self.text(short_captions(scenes, seed)))

    def drawings(self, split: str) -> Features:
        """Features of the drawings of a split."""
        pairs = list(EmbeddedPack().pairs(split))
        size = (self.encoder.image_size,) * 2
        opened = [Image.open(io.BytesIO(p.image or b"")).convert("RGB").resize(size) for p in pairs]
        pixels = torch.stack([torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8)
                              for i in opened]).view(-1, *size, 3).permute(0, 3, 1, 2)  # fmt: skip
        return Features(self.images(pixels), self.text([p.caption for p in pairs]))


def short_captions(scenes: Sequence[Scene], seed: int) -> list[str]:
    """A phrase or a sentence for each scene."""
    draws = [Draws(77, seed, i) for i in range(len(scenes))]
    return [
        describe(s, d.choice(("phrase", "sentence")), d) for s, d in zip(scenes, draws, strict=True)
    ]


def cached(folder: Path) -> dict[str, Any]:
    """All features, computed once."""
    path = folder / "head_features.pt"
    if path.exists():
        return dict(torch.load(path, weights_only=True))
    extractor, world = Extractor(folder), World()
    train = [world.scene("train", i) for i in range(SCENES)]
    tested = [world.scene("test_new", i) for i in range(TESTED)]
    found: dict[str, Any] = {
        "scenes": extractor.scenes(train, 0),
        "tested": extractor.scenes(tested, 1),
        "drawings": extractor.drawings("train"),
        "drawings_tested": extractor.drawings("validation"),
    }
    for factor in FACTORS:
        made = [(i, contrast(s, factor, world, Draws(78, i))) for i, s in enumerate(tested)]
        pairs = [(i, other) for i, other in made if other is not None]
        # Both captions of a pair are worded alike: the same draws, the same form.
        others = [other for _, other in pairs]
        draws = [(Draws(79, i), Draws(79, i)) for i, _ in pairs]
        own = [
            describe(tested[i], "phrase", d) for (i, _), (d, _) in zip(pairs, draws, strict=True)
        ]
        their = [describe(o, "phrase", d) for o, (_, d) in zip(others, draws, strict=True)]
        found[factor] = (
            torch.tensor([i for i, _ in pairs]), extractor.text(own), extractor.text(their)
        )  # fmt: skip
    save(path, found)
    return found


def train_heads(folder: Path) -> dict[str, float]:
    """Train heads on both kinds of feature; report retrieval and hard choices for each."""
    features = cached(folder)
    found: dict[str, float] = {}
    whole = torch.cat([features["scenes"].text, features["drawings"].text])
    for pooling, width in VARIANTS:
        name = pooling if width == MEAN_ONLY else f"{pooling}_rows"
        image = torch.cat([features[k].image[pooling] for k in ("scenes", "drawings")])
        text = whole[:, :width]
        torch.manual_seed(0)
        heads = ProjectionHeads(image.shape[1], text.shape[1], vision.EMBEDDED_DIM)
        trainer = heads_trainer(heads, image, text, HEADS_RUN, noise=HEADS_NOISE)
        drive(
            trainer,
            partial(batch_indices, len(image), HEADS_BATCH, HEADS_RUN.seed),
            folder / f"heads_{name}.pt",
            every=300,
        )
        heads.eval().requires_grad_(False)
        state = {k: v.half() if v.ndim else v for k, v in heads.state_dict().items()}
        save_file(state, folder / f"heads_{name}.safetensors")
        scores = measured(heads, features, pooling, text.shape[1])
        found |= {f"{name} {k}": v for k, v in scores.items()}
    (folder / "heads.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


@torch.no_grad()
def measured(
    heads: ProjectionHeads, features: dict[str, Any], pooling: Pooling, width: int
) -> dict[str, float]:
    """Recall on random candidates, and how often the right one of two captions wins."""
    found: dict[str, float] = {}
    for name, key in (("scenes", "tested"), ("drawings", "drawings_tested")):
        image = F.normalize(heads.image(features[key].image[pooling]), dim=-1)
        text = F.normalize(heads.text(features[key].text[:, :width]), dim=-1)
        found |= {f"{name} {k}": round(v, 4) for k, v in recall(text[:500], image[:500]).items()}
    image = F.normalize(heads.image(features["tested"].image[pooling]), dim=-1)
    for factor in FACTORS:
        rows, own, their = features[factor]
        right, wrong = (F.normalize(heads.text(x[:, :width]), dim=-1) for x in (own, their))
        wins = ((image[rows] * right).sum(1) > (image[rows] * wrong).sum(1)).float()
        found[f"choice {factor}"] = round(float(wins.mean()), 4)
        found[f"choice {factor} se"] = round(float(wins.std() / len(wins) ** 0.5), 4)
    return found
