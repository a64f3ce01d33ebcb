"""What the loader reads a second, and what the forms of text targets cost in bytes and in error.

    KMP_BLOCKTIME=0 OMP_WAIT_POLICY=passive python -m benchmarks.shards

Targets are real: the text encoder's outputs for captions of the embedded pack, by default of the
embedded generator (32 x 384); ``--generator`` takes any folder or hub name, such as Stable
Diffusion's (77 x 768). Errors are in l_g (norm form): the distance of the stored targets to the
exact ones, and the change of l_g of a predictor that says the mean target for every caption.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data import schemas
from data.loader import ShuffledBatches
from data.quantization import block_of, quantise, restore
from data.shards import AlignedShards, as_bytes, lists, write_shard
from data.sources.base import Pair
from data.sources.embedded_pack import EmbeddedPack
from gill.losses import generation_loss
from tasks.config.parts import GeneratorConfig, RuntimeConfig
from tasks.parts.loading import load_generator

ENCODINGS: dict[str, dict[str, Any]] = {
    "plain": {"compression": "none", "use_dictionary": False},
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "dictionary_zstd": {"compression": "zstd"},
    "byte_stream_split_zstd": {
        "compression": "zstd", "use_dictionary": False, "use_byte_stream_split": ["target"]
    },
}  # fmt: skip


def rate(work: Callable[[], int], seconds: float = 2.0) -> float:
    """Items a second of a piece of work that returns how many it did."""
    work()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += work()
    return done / (time.perf_counter() - began)


def target_table(values: np.ndarray, form: str) -> pa.Table:
    """A shard of targets as the stage writes it."""
    count, tokens, dim = values.shape
    block = block_of(dim) if form == "int8" else 0
    columns = [pa.array([f"k{i}" for i in range(count)]), pa.array([tokens] * count, pa.int32())]
    if block:
        stored, scales = quantise(values, block)
        columns += [as_bytes(stored), lists(scales, np.float16)]
    else:
        columns.append(as_bytes(values.astype(np.float16)))
    return pa.table(columns, schema=schemas.text_targets(tokens, dim, block))


def _rows_written(write: Callable[[], bytes], table: pa.Table) -> int:
    return len(table) * bool(write())


def _rows_read(data: bytes) -> int:
    return len(pq.read_table(io.BytesIO(data)))


def encodings(values: np.ndarray) -> dict[str, dict[str, float]]:
    """Bytes a caption and captions written and read a second, by form and Parquet encoding."""
    found: dict[str, dict[str, float]] = {}
    listed = pa.table({"target": lists(values, np.float16)})
    tables = {"fp16": target_table(values, "fp16"), "int8": target_table(values, "int8")}
    for form, table in {**tables, "fp16_list": listed}.items():
        for name, options in ENCODINGS.items():

            def write(table: pa.Table = table, options: dict[str, Any] = options) -> bytes:
                out = io.BytesIO()
                pq.write_table(table, out, **options)
                return out.getvalue()

            data = write()
            found[f"{form}_{name}"] = {
                "bytes": round(len(data) / len(table)),
                "writes_per_s": round(rate(partial(_rows_written, write, table))),
                "reads_per_s": round(rate(partial(_rows_read, data))),
            }
    return found


def errors(values: np.ndarray) -> dict[str, dict[str, float]]:
    """Distance of each form to the exact targets, in l_g, and what it does to a predictor's l_g."""
    exact = torch.from_numpy(values)
    mean = exact.mean(0, keepdim=True).expand_as(exact)
    whole = float(generation_loss(mean, exact))
    dim = values.shape[-1]
    forms = {"fp16": values.astype(np.float16).astype(np.float32)}
    for name, block in (("int8", block_of(dim)), ("int8_one_scale_a_token", dim)):
        stored = restore(*quantise(values, block))
        forms[name] = stored.astype(np.float32).reshape(values.shape)
    return {
        name: {
            "distance": round(float(generation_loss(torch.from_numpy(stored), exact)), 5),
            "l_g_of_mean": round(float(generation_loss(mean, torch.from_numpy(stored))), 5),
            "l_g_of_mean_exact": round(whole, 5),
        }
        for name, stored in forms.items()
    }


def loader(folder: Path, column: str, batch: int) -> float:
    """Examples a second that ``ShuffledBatches`` gives."""
    order = ShuffledBatches(AlignedShards({folder: [column]}, "train"), batch, 0, buffer_shards=4)
    stream = order.batches(0)
    return rate(lambda: len(next(stream)["key"]), 5.0)


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="embedded")
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--batch", type=int, default=200)
    given = parser.parse_args()
    generator = load_generator(GeneratorConfig(name=given.generator), RuntimeConfig())
    pairs = (p for p in EmbeddedPack().pairs("train") if isinstance(p, Pair))
    captions = [p.caption for p in islice(cycle(pairs), given.captions)]
    parts = [generator.encode_text(captions[i : i + 64]) for i in range(0, len(captions), 64)]
    values = torch.cat(parts).float().cpu().numpy()
    line: dict[str, Any] = {"shape": list(values.shape[1:]), "error": errors(values)}
    line["encodings"] = encodings(values)
    with tempfile.TemporaryDirectory() as folder:
        rates = {}
        for form in ("fp16", "int8"):
            targets = Path(folder) / form
            for shard in range(given.shards):
                write_shard(targets / f"train-{shard:05d}.parquet", target_table(values, form))
            rates[f"targets_{form}"] = round(loader(targets, "target", given.batch))
        keys = pa.array([f"k{i}" for i in range(len(values))])
        for name, column, schema, width in (
            ("features_1024", "feature", schemas.features(1024), 1024),
            ("states_8x4096", "state", schemas.img_states(8, 4096), 8 * 4096),
        ):
            made = np.random.default_rng(0).normal(size=(len(values), width)).astype(np.float16)
            table = pa.table([keys, as_bytes(made)], schema=schema)
            for shard in range(given.shards):
                write_shard(Path(folder) / name / f"train-{shard:05d}.parquet", table)
            rates[name] = round(loader(Path(folder) / name, column, given.batch))
    line["loader_examples_per_s"] = rates
    stored = {form: line["encodings"][f"{form}_plain"]["bytes"] for form in ("fp16", "int8")}
    line["bytes_a_caption"] = stored
    line["int8_to_fp16_bytes"] = round(stored["int8"] / (2 * values[0].size), 3)
    for key, value in line.items():
        print(key, json.dumps(value))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
