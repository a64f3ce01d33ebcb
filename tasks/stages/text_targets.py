"""Stage 3: the image generator's text-encoder output for every caption."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from data import schemas
from data.artifacts import ImageShards, TextTargets
from data.quantization import block_of, quantise
from data.shards import as_bytes, lists, read_table
from gill.backbones.image_generator import ImageGenerator
from tasks.config.data import TextTargetsConfig
from tasks.parts.devices import on_each_device
from tasks.parts.loading import load_text_encoder
from tasks.runner.context import StageContext
from tasks.runner.shard_map import check_room_for_rows, map_shards
from tasks.runner.stage import StageDeclaration

STAGE = StageDeclaration(
    version=2,
    description="Text-encoder outputs of the image generator",
    headlines=("rows", "rows_per_second"),
    parts=("text_encoder",),
)


def run(context: StageContext[TextTargetsConfig], images: ImageShards) -> TextTargets:
    """Write ``targets/<shard>``: tokens x width in 16 or 8 bits, and the token count."""
    config, target = context.config, context.out / TextTargets.FOLDER
    runtimes = on_each_device(context.runtime)
    generators = [load_text_encoder(context.parts.generator, runtime) for runtime in runtimes]
    tokens, dim = generators[0].num_tokens, generators[0].dim
    block = block_of(dim) if config.form == "int8" else 0
    schema = schemas.text_targets(tokens, dim, block)
    check_room_for_rows(images.folder, target, tokens * dim * (1 if block else 2), "targets")

    def convert(generator: ImageGenerator, path: Path) -> pa.Table:
        table = read_table(path, ["key", "caption"], ImageShards.SCHEMA)
        captions = table.column("caption").to_pylist()
        parts, counts = [np.empty((0, tokens, dim), np.float32)], []
        for start in range(0, len(captions), config.batch_size):
            chunk = captions[start : start + config.batch_size]
            encoded = generator.encode_text(chunk)
            # A pipeline tokenises for itself and tells no lengths. A GPU still computes meanwhile.
            counts += generator.count_tokens(chunk)
            parts.append(encoded.float().cpu().numpy())
        values = np.concatenate(parts)
        columns = [table.column("key"), pa.array(counts, pa.int32())]
        if block:
            codes, scales = quantise(values, block)
            columns += [as_bytes(codes), lists(scales, np.float16)]
        else:
            columns.append(as_bytes(values.astype(np.float16)))
        return pa.table(columns, schema=schema)

    converts = [partial(convert, generator) for generator in generators]
    shards = context.shards
    metrics = map_shards(context.log, images.folder, target, "captions", converts, shards)
    read = generators[0].text_tokens
    lengths = [read_table(p, ["num_tokens"]).column("num_tokens").to_numpy()
               for p in sorted(target.glob("*.parquet"))]  # fmt: skip
    metrics |= {
        "tokens": float(tokens),
        "dim": float(dim),
        "captions_cut": float(sum((length > read).sum() for length in lengths)),
    }
    return TextTargets.made(context.out, metrics)
