"""A perceptual hash: images that look alike have like bits, whatever their size and format.

The DCT hash of C. Zauner, "Implementation and benchmarking of perceptual image hash functions"
(2010), which pHash and ImageHash have too: of 32 x 32 grey pixels the 8 x 8 lowest frequencies but
those that are constant along an axis, and of each one bit: whether it lies over their median.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg
from PIL import Image
from scipy.fft import dctn

from data import schemas
from data.artifacts import ClipFeatures, ImageShards
from data.io.image_decoder import any_size, decode, jpeg_orientation
from data.shards import read_table
from tasks.runner.shard_map import map_shards
from tasks.tracking.stage_log import StageLog

Hashes = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.float32]
BITS = 64
_EDGE, _KEPT = 32, 8
_FLAT = 1.0  # grey levels: the bits of an image that varies less are noise
_TOGETHER = 1024  # hashes that are compared at once


def write_hashes(images: ImageShards, out: Path, log: StageLog) -> Path:
    """Write ``hashes/<shard>`` of every image shard; returns the folder."""
    target = out / ClipFeatures.HASHES
    with ThreadPoolExecutor(os.cpu_count(), "hash") as pool:
        map_shards(
            log, images.folder, target, "hashed images", partial(_convert, pool), curve="hashed"
        )
    return target


def _convert(pool: Executor, path: Path) -> pa.Table:
    table = read_table(path, ["key", "image"], ImageShards.SCHEMA)
    grey = [np.empty((0, _EDGE, _EDGE), np.float32)]
    grey += [one[None] for one in pool.map(grey_of, table.column("image").to_pylist())]
    return pa.table([table.column("key"), hashes_of(np.concatenate(grey))], schema=schemas.HASHES)


def grey_of(data: bytes) -> Grey:
    """The image that bytes hold as grey pixels ``(32, 32)`` of 0 to 255.

    Raises:
        ImageError: they hold none.
    """
    image = _scaled_jpeg(data) or decode(data, any_size).convert("L")
    return np.asarray(image.resize((_EDGE, _EDGE), Image.Resampling.BOX), np.float32)


def _scaled_jpeg(data: bytes) -> Image.Image | None:
    """A JPEG that is decoded to the size that is needed alone; None for what is no plain one."""
    if not data.startswith(b"\xff\xd8\xff") or jpeg_orientation(data) != 1:
        return None
    edge = 2 * _EDGE
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY", min_height=edge, min_width=edge, min_factor=1)
    except ValueError:
        return None  # such as CMYK
    return Image.fromarray(pixels[:, :, 0])


def hashes_of(grey: Grey) -> Hashes:
    """64 bits of each image; 0 for one of a single colour, which is like nothing.

    Args:
        grey: ``(n, 32, 32)``, see ``grey_of``.
    """
    low = dctn(grey, axes=(1, 2))[:, 1 : _KEPT + 1, 1 : _KEPT + 1].reshape(len(grey), BITS)
    bits = low > np.median(low, axis=1, keepdims=True)
    found = np.packbits(bits, axis=1).view(">u8").reshape(-1).astype(np.uint64)
    return np.where(grey.std(axis=(1, 2)) < _FLAT, np.uint64(0), found)


def nearest_hash(
    asked: Hashes, others: Hashes, own: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each of some hashes the place of the nearest other one, and how many bits differ.

    Args:
        asked: ``(n,)``. others: ``(m,)``. A hash of 0 differs from all in 64 bits.
        own: places of ``asked`` in ``others``, where it is of them: no hash is its own neighbour.
    """
    best, at = np.full(len(asked), BITS, np.uint8), np.zeros(len(asked), np.int64)
    every = np.arange(len(asked))
    for start in range(0, len(others), _TOGETHER):
        chunk = others[start : start + _TOGETHER]
        differ = np.bitwise_count(asked[:, None] ^ chunk)
        differ[asked == 0] = BITS
        differ[:, chunk == 0] = BITS
        if own is not None:
            here = (own >= start) & (own < start + len(chunk))
            differ[every[here], own[here] - start] = BITS
        place = differ.argmin(1)
        found = differ[every, place]
        nearer = found < best
        best[nearer], at[nearer] = found[nearer], place[nearer] + start
    return at, best.astype(np.int64)
