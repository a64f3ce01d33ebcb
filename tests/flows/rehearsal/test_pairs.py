"""Tars of the rehearsal are what the source of webdatasets reads."""

import io
import json

import numpy as np
from micro_rehearsal import MICRO
from PIL import Image

from data.sources.base import Pair
from data.sources.webdataset import TarFiles
from flows.recipes import resolve
from flows.rehearsal.pairs import make_pairs, photograph
from flows.rehearsal.sizes import Splits


def test_the_recipes_source_reads_every_pair(tmp_path):
    make_pairs(MICRO.pairs, tmp_path)
    source = TarFiles.of(resolve("opt-6.7b", MICRO.overrides(tmp_path)).download)
    rows = {split: list(source.pairs(split)) for split in source.splits()}
    assert {split: len(found) for split, found in rows.items()} == {
        "train": 8, "validation": 16, "test": 4,
    }  # fmt: skip
    assert all(isinstance(row, Pair) for found in rows.values() for row in found)
    texts = [row.caption for found in rows.values() for row in found]
    assert all(3 < len(text.split()) < 25 for text in texts)
    assert len({row.image for found in rows.values() for row in found}) == 28


def test_pairs_that_are_there_are_kept_and_another_number_is_made_anew(tmp_path):
    make_pairs(Splits(2, 1, 1), tmp_path)
    first = tmp_path / "pairs" / "train-0000.tar"
    before = first.stat().st_mtime_ns
    make_pairs(Splits(2, 1, 1), tmp_path)
    assert first.stat().st_mtime_ns == before
    make_pairs(Splits(1, 1, 1), tmp_path)
    assert first.stat().st_mtime_ns != before
    assert json.loads((tmp_path / "pairs" / "pairs.json").read_text())["train"] == 1


def test_a_photograph_is_of_their_size_and_smoother_than_noise():
    data = photograph(3)
    assert photograph(3) == data
    assert 50_000 < len(data) < 200_000
    pixels = np.asarray(Image.open(io.BytesIO(data)), np.float64)
    assert pixels.shape == (448, 640, 3)
    beside = np.abs(np.diff(pixels[..., 1], axis=1)).mean()
    far = np.abs(pixels[:, 100:, 1] - pixels[:, :-100, 1]).mean()
    assert beside < far / 2
