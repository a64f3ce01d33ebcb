"""Tables like those of the stages, for tests of what reads shards."""

import numpy as np
import pyarrow as pa

from data import schemas
from data.quantization import block_of, quantise
from data.shards import as_bytes, lists


def feature_table(keys, dim=3, offset=0.0):
    values = np.arange(len(keys) * dim, dtype=np.float16).reshape(-1, dim) + np.float16(offset)
    return pa.table([pa.array(keys), as_bytes(values)], schema=schemas.features(dim))


def target_table(values, kind="int8"):
    count, tokens, dim = values.shape
    block = block_of(dim) if kind == "int8" else 0
    columns = [pa.array([f"k{i}" for i in range(count)]), pa.array([tokens] * count, pa.int32())]
    if block:
        target, scales = quantise(values, block)
        columns += [as_bytes(target), lists(scales, np.float16)]
    else:
        columns.append(as_bytes(values.astype(np.float16)))
    return pa.table(columns, schema=schemas.text_targets(tokens, dim, block))


def kept_table(keys, kept):
    columns = [pa.array(keys), pa.array([0.5] * len(keys), pa.float32()), pa.array(kept)]
    return pa.table(columns, schema=schemas.KEPT)
