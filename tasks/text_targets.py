"""Stage 3: the image generator's text-encoder output for every caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data import schemas
from data.quantised import block_of, quantise
from data.shards import as_bytes, lists, read_table
from tasks.config import TextTargetsConfig
from tasks.download import IMAGES
from tasks.frozen import load_generator
from tasks.shardwise import map_shards
from tasks.stage import StageContext

TARGETS = "targets"


def run(context: StageContext) -> dict[str, float]:
    """Write ``targets/<shard>``: tokens x width in 16 or 8 bits, and the token count."""
    config: TextTargetsConfig = context.config
    generator = load_generator(context.parts.generator, context.runtime)
    block = block_of(generator.dim) if config.form == "int8" else 0
    schema = schemas.text_targets(generator.num_tokens, generator.dim, block)
    empty = np.empty((0, generator.num_tokens, generator.dim), np.float32)
    cut = 0

    def convert(path: Path) -> pa.Table:
        nonlocal cut
        table = read_table(path, ["key", "caption"], "images")
        captions = table.column("caption").to_pylist()
        counts = generator.count_tokens(captions)
        cut += sum(count > generator.num_tokens for count in counts)
        parts = [
            generator.encode_text(captions[i : i + config.batch_size]).float().cpu().numpy()
            for i in range(0, len(captions), config.batch_size)
        ]
        values = np.concatenate([empty, *parts])
        columns = [table.column("key"), pa.array(counts, pa.int32())]
        if block:
            codes, scales = quantise(values, block)
            columns += [as_bytes(codes), lists(scales, np.float16)]
        else:
            columns.append(as_bytes(values.astype(np.float16)))
        return pa.table(columns, schema=schema)

    folder = context.inputs["download"].file(IMAGES)
    metrics = map_shards(context, folder, context.out / TARGETS, "captions", convert)
    return {
        **metrics,
        "tokens": float(generator.num_tokens),
        "dim": float(generator.dim),
        "captions_cut": float(cut),
    }
