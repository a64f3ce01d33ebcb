"""Values in 8 bits with a scale for each block of a vector.

Text-encoder outputs have a few widths that are many times as large as the rest (CLIP's reach 30
where most are below 2). One scale for a whole token would follow those and leave few of the 255
steps to the others; a scale for each 64 values confines them to their block, at 1/32 more bytes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BLOCK = 64
Floats = npt.NDArray[np.floating]


def block_of(dim: int) -> int:
    """The block for vectors of a width: 64, or the whole vector where 64 does not divide it."""
    return BLOCK if dim % BLOCK == 0 else dim


def quantise(values: Floats, block: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Codes ``(n, size)`` and scales ``(n, size / block)`` of values ``(n, ...)``.

    A value is ``code * scale`` with an error of at most half a scale, which is the block's largest
    magnitude over 127 (rounded to half precision).
    """
    size = math.prod(values.shape[1:])
    blocks = np.asarray(values, np.float32).reshape(len(values), size // block, block)
    scales = (np.abs(blocks).max(-1) / 127).astype(np.float16)
    safe = np.where(scales == 0, np.float32(1), scales.astype(np.float32))
    codes = np.clip(np.rint(blocks / safe[..., None]), -127, 127).astype(np.int8)
    return codes.reshape(len(values), size), scales


def restore(
    codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]
) -> npt.NDArray[np.float16]:
    """Values ``(n, size)`` of codes ``(n, size)`` and scales ``(n, blocks)``."""
    rows, count = scales.shape
    blocks = codes.reshape(rows, count, codes.shape[1] // count)
    values = blocks * scales.astype(np.float32)[..., None]
    return values.astype(np.float16).reshape(codes.shape)
