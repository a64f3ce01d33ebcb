"""How well captions and images fit each other, and training pairs that fit too little."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from data import schemas
from data.artifacts import ClipFeatures, ImageShards
from data.shards import from_bytes, read_table
from gill.backbones.vision import UnsuitableTowerError, VisionEncoder
from tasks.runner.shard_map import map_shards
from tasks.runner.stage import NothingKeptError
from tasks.tracking.stage_log import StageLog

Vectors = npt.NDArray[np.float32]
_TOGETHER = 512  # captions


def has_text_tower(encoder: VisionEncoder) -> bool:
    """Whether an encoder can tell how well a caption fits an image."""
    return callable(getattr(encoder.model, "encode_text", None))


def check_text_tower(encoder: VisionEncoder) -> None:
    """See that pairs can be dropped by similarity, before the work begins.

    Raises:
        UnsuitableTowerError: the encoder has no text tower.
    """
    if not has_text_tower(encoder):
        raise UnsuitableTowerError(
            f"clip_features.minimum_similarity is set, and {encoder.name} has no text tower to "
            "compare captions with; set it to -1, or use a CLIP as parts.vision"
        )


def similarities(encoder: VisionEncoder, captions: Sequence[str], pooled: Vectors) -> Vectors:
    """Cosines ``(n,)`` of captions and images in the encoder's image-text space.

    Args:
        pooled: the images' features ``(n, pooled_dim)``, as the stage stores them.
    """
    found = [np.empty(0, np.float32)]
    for start in range(0, len(captions), _TOGETHER):
        texts = encoder.text(captions[start : start + _TOGETHER])
        shown = encoder.project(torch.from_numpy(pooled[start : start + _TOGETHER]))
        found.append((texts * shown).sum(-1).cpu().numpy())
    return np.concatenate(found)


def drop_dissimilar(
    images: ImageShards,
    features: Path,
    encoders: Sequence[VisionEncoder],
    minimum: float,
    out: Path,
    log: StageLog,
) -> dict[str, int]:
    """Write ``kept/<shard>`` for the training shards: which pairs are trained on.

    Held-out pairs all stay, so that figures on them can be compared.

    Args:
        features: the folder with the shards of features. encoders: one for each device.
        minimum: pairs whose caption and image have a lower cosine are dropped.

    Returns:
        How many training pairs are dropped, by reason.

    Raises:
        NothingKeptError: no pair would be left to train on.
    """

    def convert(encoder: VisionEncoder, path: Path) -> pa.Table:
        table = read_table(path, ["key", "caption"], ImageShards.SCHEMA)
        vectors = from_bytes(read_table(features / path.name, None, ClipFeatures.SCHEMA), "feature")
        captions = table.column("caption").to_pylist()
        cosines = similarities(encoder, captions, np.asarray(vectors, np.float32))
        return pa.table([table.column("key"), cosines, cosines >= minimum], schema=schemas.KEPT)

    target, names = out / ClipFeatures.KEPT, images.names("train")
    converts = [partial(convert, encoder) for encoder in encoders]
    map_shards(log, images.folder, target, "compared pairs", converts, names, curve="compared")
    tables = [read_table(target / name, ["similarity", "kept"]) for name in names]
    kept = np.concatenate([table.column("kept").to_numpy() for table in tables])
    dropped = int(np.count_nonzero(~kept))
    if dropped == len(kept):
        most = max(table.column("similarity").to_numpy().max() for table in tables if len(table))
        raise NothingKeptError(
            f"clip_features.minimum_similarity {minimum:g} drops all {dropped:,} training pairs; "
            f"their highest similarity is {most:.3f}"
        )
    log.note(f"{dropped:,} of {len(kept):,} training pairs dropped: similarity under {minimum:g}")
    return {"low_similarity": dropped}
