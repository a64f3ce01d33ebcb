"""What GILL answers to captions, from stored [IMG] states: retrieved and generated images."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.artifacts import Artifact
from data.shards import from_bytes, read_table, shard_names
from gill.backbones.image_generator import ImageGenerator
from gill.backbones.vision import VisionEncoder
from gill.inference.index import Index
from gill.mapper import Mapper, MapperKind
from gill.retrieval import RetrievalMaps
from tasks.config.parts import GeneratorConfig
from tasks.parts.devices import device_of
from tasks.parts.loading import load_generator, load_vision
from tasks.runner.context import StageContext
from tasks.stages import index as index_stage
from tasks.stages import mapper as mapper_stage
from tasks.stages.clip_features import FEATURES
from tasks.stages.download import IMAGES

SHOWN = 256  # edge of an image that is kept to be looked at, in pixels


@dataclass
class Answers:
    """The frozen scorer and generator with the trained maps, for stages that score images."""

    context: StageContext
    vision: VisionEncoder
    generator: ImageGenerator
    maps: RetrievalMaps
    index: Index
    img: Tensor
    settings: GeneratorConfig

    @classmethod
    def load(cls, context: StageContext) -> Answers:
        """Load what the artifacts and parts of a stage describe."""
        inputs = context.inputs
        return cls(
            context=context,
            vision=load_vision(context.parts.vision, context.runtime),
            generator=load_generator(context.parts.generator, context.runtime),
            maps=index_stage.retrieval_maps(inputs["adapters"]),
            index=index_stage.load(inputs["index"]),
            img=mapper_stage.img_embeddings(inputs["adapters"]),
            settings=context.parts.generator,
        )

    def mapper(self, kind: MapperKind | None = None) -> Mapper:
        """A trained mapper by its kind; without one, the mapper that is no baseline."""
        artifact = self.context.inputs["mapper"]
        chosen: MapperKind = kind or artifact.manifest().config["kind"]
        return mapper_stage.load(artifact, chosen, device_of(self.context.runtime))

    def states(self, rows: Mapping[str, object]) -> Tensor:
        """[IMG] states ``(n, r, llm_dim)`` of shard rows."""
        states = torch.from_numpy(np.asarray(rows["state"], np.float32))
        return states.view(len(states), *self.img.shape)

    @torch.no_grad()
    def conditioning(self, mapper: Mapper, states: Tensor) -> Tensor:
        """The mapper's output ``(n, num_targets, target_dim)``."""
        device = next(mapper.parameters()).device
        out: Tensor = mapper(states.to(device), self.img)
        return out

    def sample(
        self, conditioning: Tensor, seeds: Sequence[int], guidance_scale: float | None = None
    ) -> Tensor:
        """Images ``(n, 3, size, size)`` with the recipe's sampler settings."""
        scale = self.settings.guidance_scale if guidance_scale is None else guidance_scale
        return self.generator.generate(
            conditioning, seeds, scale, self.settings.steps, self.settings.batch_size
        )

    def encode_images(self, images: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
        """Pooled features and unit vectors of images in [0, 1]."""
        pooled = torch.cat(
            [
                self.vision.pooled(self.vision.prepare_tensor(part)).float().cpu()
                for part in images.split(batch_size)
            ]
        )
        return pooled, self.vision.project(pooled).cpu()

    def retrieve(self, states: Tensor, own: Sequence[str | None]) -> tuple[list[str], Tensor]:
        """Key and score of the best image for each prompt, its own image left out."""
        without = [() if key is None else (key,) for key in own]
        found = self.index.nearest(self.maps.embed_text(states), 1, without)
        if not all(found):
            raise ValueError(
                "the index holds no image but a prompt's own; add splits to index.splits"
            )
        return [best.key for (best,) in found], torch.tensor([best.score for (best,) in found])


def pooled_features(artifact: Artifact, keys: Collection[str]) -> dict[str, Tensor]:
    """Stored pooled features of some images, by key."""
    wanted, found = set(keys), {}
    folder: Path = artifact.file(FEATURES)
    for name in shard_names(folder):
        table = read_table(folder / name, kind="features")
        values = from_bytes(table, "feature")
        for row, key in enumerate(table.column("key").to_pylist()):
            if key in wanted:
                found[key] = torch.from_numpy(np.asarray(values[row], np.float32))
    return found


def stored_images(
    artifact: Artifact, keys: Collection[str], split: str | None = None
) -> dict[str, Image.Image]:
    """Images of the image shards of one split or of all, by key."""
    wanted, found = set(keys), {}
    folder: Path = artifact.file(IMAGES)
    for name in shard_names(folder, split):
        present = read_table(folder / name, ["key"]).column("key").to_pylist()
        if not wanted & set(present):
            continue
        for row in read_table(folder / name, ["key", "image"]).to_pylist():
            if row["key"] in wanted:
                found[row["key"]] = opened(row["image"]).convert("RGB")
    return found


def webp(image: Image.Image, edge: int) -> bytes:
    """An image as a small file of at most ``edge`` pixels, to keep beside a result."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((edge, edge))
    small.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """The image of a file's bytes."""
    return Image.open(io.BytesIO(data))


def as_image(image: Tensor) -> Image.Image:
    """An image ``(3, h, w)`` in [0, 1] as a PIL image."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
