"""The embedded pack."""

import io
import json
import shutil

import pytest
from PIL import Image

from data.sources.base import SourceError
from data.sources.embedded_pack import PACK, EmbeddedPack


def test_splits_share_no_title_and_every_image_opens():
    titles = {}
    for split in EmbeddedPack().splits():
        pairs = list(EmbeddedPack().pairs(split))
        titles[split] = {p.title for p in pairs}
        for pair in pairs[:50]:
            with Image.open(io.BytesIO(pair.image)) as image:
                assert image.size == (128, 128)
                image.load()
        assert all(p.caption.strip() for p in pairs)
    assert not titles["train"] & titles["test"]
    assert not titles["train"] & titles["validation"]
    assert not titles["validation"] & titles["test"]
    assert len(titles["test"]) == 500


def test_keys_are_unique():
    keys = [p.key for s in EmbeddedPack().splits() for p in EmbeddedPack().pairs(s)]
    assert len(keys) == len(set(keys)) == json.loads((PACK / "pack.json").read_text())["rows"]


def test_a_limit_changes_the_identity_and_the_count():
    assert len(list(EmbeddedPack(limit=5).pairs("train"))) == 5
    assert EmbeddedPack(limit=5).identity() != EmbeddedPack().identity()


def test_a_changed_or_missing_pack_is_refused(tmp_path):
    shutil.copy(PACK / "pack.json", tmp_path)
    with pytest.raises(SourceError, match="missing"):
        next(EmbeddedPack(folder=tmp_path).pairs("train"))
    data = bytearray((PACK / "pairs.parquet").read_bytes())
    data[1000] ^= 1
    (tmp_path / "pairs.parquet").write_bytes(data)
    with pytest.raises(SourceError, match="checksum"):
        next(EmbeddedPack(folder=tmp_path).pairs("train"))


def test_the_pack_is_within_its_budget():
    assert (PACK / "pairs.parquet").stat().st_size <= 15_000_000
