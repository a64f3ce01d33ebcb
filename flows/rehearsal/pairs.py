"""Webdataset tars as CC3M is shared: photographs' spectrum, captions of about 11 tokens."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.scenes.captions import caption
from data.scenes.grammar import World
from flows.rehearsal.sizes import PAIRS, Splits

_A_TAR = 1000  # examples
_WIDTH, _HEIGHT = 640, 448
_QUALITY = 80


def make_pairs(pairs: Splits, folder: Path) -> None:
    """Write ``pairs/train-*.tar`` and ``pairs/held_out-*.tar``; as many as are there are kept."""
    target, mark = folder / PAIRS, folder / PAIRS / "pairs.json"
    wanted = {"train": pairs.train, "held_out": pairs.validation + pairs.test}
    if mark.exists() and json.loads(mark.read_text()) == wanted:
        return
    part = target.with_name(f"{PAIRS}.part")
    for old in (target, part):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    for seed, (split, count) in enumerate(wanted.items()):
        for start in range(0, count, _A_TAR):
            rows = range(start, min(count, start + _A_TAR))
            with tarfile.open(part / f"{split}-{start // _A_TAR:04d}.tar", "w") as tar:
                for name, data in _members(rows, seed):
                    about = tarfile.TarInfo(name)
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))
    (part / mark.name).write_text(json.dumps(wanted))
    part.rename(target)


def _members(rows: range, seed: int) -> Iterator[tuple[str, bytes]]:
    world = World()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        photographs = pool.map(photograph, (seed * 10**9 + row for row in rows))
    for row, image in zip(rows, photographs, strict=True):
        text = caption(world.scene("train", row), "train", row + seed * 10**9, 0, "phrase")
        url = f"https://example.org/{seed}/{row}.jpg"
        about = {"key": f"{row:09d}", "url": url, "caption": text, "status": "success"}
        yield f"{row:09d}.jpg", image
        yield f"{row:09d}.txt", text.encode()
        yield f"{row:09d}.json", json.dumps(about).encode()


def photograph(seed: int) -> bytes:
    """A JPEG whose amplitudes fall with the frequency, as those of photographs do.

    So that it takes about their bytes (Field 1987, doi 10.1364/JOSAA.4.002379).
    """
    random = np.random.default_rng(seed)
    planes = [_falling(random) for _ in range(3)]
    # The channels of a photograph are much alike.
    mixed = np.stack([0.8 * planes[0] + 0.2 * plane for plane in planes], -1)
    low, high = np.percentile(mixed, [1, 99])
    pixels = np.clip(255 * (mixed - low) / (high - low), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _falling(random: np.random.Generator) -> npt.NDArray[np.float64]:
    rows, columns = np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1.0
    noise = np.fft.rfft2(random.standard_normal((_HEIGHT, _WIDTH)))
    return np.fft.irfft2(noise / frequency**1.2, s=(_HEIGHT, _WIDTH))
