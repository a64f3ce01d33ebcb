"""What a stage holds in the host's memory that grows with the parts or with the data."""

from __future__ import annotations

from data.loader import ShuffledBatches
from flows.rehearsal.sizes import Parts
from flows.rehearsal.work import Scale

_HALF, _SINGLE = 2, 4  # bytes of a number
_KEY = 100  # bytes of a Python string of a key or a caption
_TARGET_TOKENS = 77


def weights(stage: str, parts: Parts) -> float:
    """Bytes of the weights of its parts whose depth can be cut."""
    language = float(_HALF * parts.language.layers * parts.language.layer_weights)
    vision = float(
        _SINGLE * parts.vision.layers * 12 * int(parts.vision.model["vision_cfg"]["width"]) ** 2
    )
    return {
        "clip_features": vision,
        "adapters": language,
        "joint": language,
        "imported": language,
        "decision": vision,
        "evaluate": language + vision,
    }.get(stage, 0.0)


def tables(stage: str, scale: Scale) -> float:
    """Bytes of rows that it holds at once: what it trains on next, held-out splits, an index."""
    config, splits = scale.config, scale.splits
    state = config.adapters.num_img_tokens * scale.parts.language.width
    target = _TARGET_TOKENS * scale.parts.generator.text_width
    coded = target * (1 if config.text_targets.form == "int8" else _HALF)
    # A buffer of shards is used while the next is read.
    ahead = 2 * min(splits.train, ShuffledBatches.buffer_shards * config.download.shard_size)
    entry = config.adapters.retrieval_dim * _HALF + config.adapters.retrieval_dim // 4 + _KEY
    index = splits.train * entry
    both = _HALF + _SINGLE  # as stored, and as computed with
    held_out = splits.validation * (_HALF * (state + target) + 2 * _SINGLE * target)
    return float(
        {
            "mapper": ahead * (_HALF * state + coded) + held_out,
            "joint": ahead * coded + splits.validation * _HALF * target,
            "decision": splits.validation * both * state + index,
            "evaluate": splits.test * both * (state + target) + index + splits.train * _KEY,
        }.get(stage, 0)
    )
