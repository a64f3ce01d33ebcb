"""Artifacts of a few rows, as the stages write them, for the tests of what reads several."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from data import schemas
from data.artifacts import ClipFeatures, ImageShards, TextTargets, TrainedAdapters
from data.shards import as_bytes, read_table, write_shard
from flows.recipes import tiny
from gill.backbones.testing import micro_models
from gill.model import Adapters
from gill.specs import AdapterSpec
from tasks.parts.trained_adapters import save_adapters
from tasks.runner.context import StageContext
from tasks.tracking.stage_log import ConsoleLog

R, VISION, LLM, TARGET = 3, 32, 32, (8, 16)  # [IMG] tokens and widths as in micro_engine
NOUNS = ("cat", "dog", "red bus", "tree", "old boat", "moon")
COUNTS = {"train": 12, "validation": 6, "test": 6}


def image_file(shade: int) -> bytes:
    """A PNG of one colour."""
    held = io.BytesIO()
    Image.new("RGB", (40, 30), (shade % 256, 255 - shade % 256, 90)).save(held, "PNG")
    return held.getvalue()


def images_table(keys: list[str], captions: list[str]) -> pa.Table:
    """Rows of the image shards, each with a colour of its own."""
    count = len(keys)
    columns = {
        "key": keys, "caption": captions, "origin": keys, "source": keys,
        "image": [image_file(20 * row) for row in range(count)],
        "width": [40] * count, "height": [30] * count,
        "original_width": [40] * count, "original_height": [30] * count,
    }  # fmt: skip
    rows = [pa.array(columns.get(f.name, [""] * count), f.type) for f in schemas.IMAGES]
    return pa.table(rows, schema=schemas.IMAGES)


class SmallStore:
    """Image shards, features, targets and adapters with states, of the same keys.

    Attributes:
        features_of, targets_of, states_of: by split, the values that were written.
    """

    def __init__(self, folder: Path, captions: dict[str, list[str]] | None = None) -> None:
        captions = captions or {
            split: [f"a {NOUNS[i % 6]}, number {i}" for i in range(count)]
            for split, count in COUNTS.items()
        }
        self.captions, rng = captions, np.random.default_rng(0)
        self.images = ImageShards("download", "f", folder / "download" / "f")
        self.features = ClipFeatures("clip_features", "f", folder / "clip_features" / "f")
        self.targets = TextTargets("text_targets", "f", folder / "text_targets" / "f")
        self.adapters = TrainedAdapters("adapters", "f", folder / "adapters" / "f")
        self.features_of, self.targets_of, self.states_of = {}, {}, {}
        for split, said in captions.items():
            self.keys(split)
            shapes = ((VISION,), TARGET, (R, LLM))
            values = [rng.normal(size=(len(said), *s)).astype(np.float16) for s in shapes]
            self.features_of[split], self.targets_of[split], self.states_of[split] = values
            # Two shards, so that what joins them is used.
            for number, rows in enumerate(np.array_split(np.arange(len(said)), 2)):
                self._write(split, f"{split}-{number:05d}.parquet", rows)

    def keys(self, split: str) -> list[str]:
        """The keys of a split, in order."""
        return [f"{split}/{i}" for i in range(len(self.captions[split]))]

    def trained(self) -> Adapters:
        """Untrained adapters, written beside the states."""
        language = micro_models.language_model()
        torch.manual_seed(0)
        spec = AdapterSpec(
            num_img_tokens=R, num_visual_tokens=2, retrieval_dim=8, vision_dim=VISION, llm_dim=LLM
        )
        adapters = Adapters(spec, language).eval()
        save_adapters(self.adapters.path, adapters)
        return adapters

    def select(self, kept: list[bool]) -> None:
        """Say in the features and beside the states which training pairs are kept."""
        for name, rows in self._training(kept):
            keys = self.images.read(name, ["key"]).column("key")
            columns = [keys, pa.array([0.5] * len(keys), pa.float32()), pa.array(rows)]
            table = pa.table(columns, schema=schemas.KEPT)
            for artifact in (self.features, self.adapters):
                write_shard(artifact.path / artifact.KEPT / name, table)

    def remove(self, kept: list[bool]) -> None:
        """Take the other training pairs out of every shard."""
        folders = (self.images.folder, self.features.folder, self.targets.folder,
                   self.adapters.states)  # fmt: skip
        for name, rows in self._training(kept):
            for folder in folders:
                write_shard(folder / name, read_table(folder / name).filter(pa.array(rows)))

    def _training(self, kept: list[bool]) -> Iterator[tuple[str, list[bool]]]:
        halves = np.array_split(np.array(kept), 2)
        yield from zip(self.images.names("train"), [h.tolist() for h in halves], strict=True)

    def _write(self, split: str, name: str, rows: np.ndarray) -> None:
        keys = [self.keys(split)[i] for i in rows]
        captions = [self.captions[split][i] for i in rows]
        write_shard(self.images.path / "images" / name, images_table(keys, captions))
        for folder, values, schema in (
            (self.features.path / "features", self.features_of, schemas.features(VISION)),
            (self.adapters.path / "states", self.states_of, schemas.img_states(R, LLM)),
        ):
            table = pa.table([pa.array(keys), as_bytes(values[split][rows])], schema=schema)
            write_shard(folder / name, table)
        counts = pa.array([5] * len(keys), pa.int32())
        columns = [pa.array(keys), counts, as_bytes(self.targets_of[split][rows])]
        table = pa.table(columns, schema=schemas.text_targets(*TARGET))
        write_shard(self.targets.path / "targets" / name, table)


def tiny_context(config: Any, out: Path, device: str = "cpu", shards: tuple[str, ...] = ()) -> Any:
    """What a stage gets when it runs on micro models and writes into ``out``."""
    recipe = tiny()
    runtime = recipe.runtime.model_copy(update={"device": device})
    return StageContext(config, recipe.parts, runtime, out, ConsoleLog(), shards)
