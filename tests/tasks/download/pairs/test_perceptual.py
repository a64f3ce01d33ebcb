"""Perceptual hashes: of the same look alike, of another look not, whatever the format."""

import io

import numpy as np
import pytest
from PIL import Image
from small_store import SmallStore, images_table

from data.artifacts import ClipFeatures
from data.io.image_decoder import ImageError
from data.shards import read_table, write_shard
from tasks.download.pairs.likeness import LIKE_BITS
from tasks.download.pairs.perceptual import grey_of, hashes_of, nearest_hash, write_hashes
from tasks.tracking.stage_log import ConsoleLog


def scene(seed, size=(160, 120)):
    """Smooth shapes, as photographs have them."""
    small = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **how):
    held = io.BytesIO()
    image.save(held, kind, **how)
    return held.getvalue()


def hash_of(*files):
    return hashes_of(np.stack([grey_of(data) for data in files]))


def differ(one, other):
    return int(np.bitwise_count(hash_of(one)[0] ^ hash_of(other)[0]))


@pytest.mark.parametrize("seed", range(5))
def test_an_image_in_another_form_is_like_itself(seed):
    image = scene(seed)
    forms = [
        encoded(image, "JPEG", quality=60),
        encoded(image.resize((640, 480)), "JPEG", quality=90),  # decoded smaller
        encoded(image.resize((80, 60)), "WEBP", quality=80),
        encoded(image.convert("L")),
        encoded(image.convert("CMYK"), "JPEG", quality=90),
        encoded(image.point(lambda value: 20 + value * 3 // 4)),  # paler
    ]
    assert all(differ(encoded(image), form) <= LIKE_BITS for form in forms)
    assert differ(encoded(image), encoded(scene(seed + 100))) > 3 * LIKE_BITS


def test_a_jpeg_lies_as_its_metadata_says():
    image, exif = scene(1), Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = image.transpose(Image.Transpose.ROTATE_180)
    assert differ(encoded(image), encoded(turned, "JPEG", exif=exif)) <= LIKE_BITS
    assert differ(encoded(image), encoded(turned, "JPEG")) > LIKE_BITS


def test_bits_are_those_of_the_plain_formula():
    grey = grey_of(encoded(scene(3)))
    n = np.arange(32)
    basis = np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / 64)
    low = (basis @ grey @ basis.T)[1:9, 1:9].ravel()
    expected = int("".join("1" if value > np.median(low) else "0" for value in low), 2)
    assert hashes_of(grey[None]).tolist() == [expected]


def test_an_image_of_one_colour_is_like_nothing():
    white, black = (encoded(Image.new("RGB", (50, 40), c)) for c in ("white", "black"))
    grain = np.random.default_rng(0).integers(250, 252, (48, 48), np.uint8)
    hashes = hash_of(white, black, encoded(Image.fromarray(grain)))
    assert hashes.tolist() == [0, 0, 0]
    assert nearest_hash(hashes, hashes)[1].tolist() == [64, 64, 64]
    assert len(hashes_of(np.empty((0, 32, 32), np.float32))) == 0


@pytest.mark.parametrize("own", [True, False])
def test_the_nearest_hash_is_as_by_brute_force(own):
    rng = np.random.default_rng(0)
    others = rng.integers(1, 1 << 63, 2500).astype(np.uint64)
    others[[3, 1500]] = 0
    rows = np.array([0, 3, 1023, 1024, 2499])
    asked = others[rows] if own else others[rows] ^ np.uint64(5)
    at, bits = nearest_hash(asked, others, rows if own else None)
    for n, row in enumerate(rows):
        plain = [bin(int(asked[n]) ^ int(other)).count("1") if other else 64 for other in others]
        if own:
            plain[row] = 64
        if asked[n] == 0:
            plain = [64]
        assert bits[n] == min(plain)
        assert asked[n] == 0 or plain[at[n]] == min(plain)


def test_hashes_lie_in_shards_of_the_same_rows(tmp_path):
    images = SmallStore(tmp_path).images
    keys, seeds = ["a", "b", "c"], [1, 2, 1]
    table = images_table(keys, keys)
    at = table.column_names.index("image")
    files = [encoded(scene(seed)) for seed in seeds]
    write_shard(
        images.folder / "train-00002.parquet", table.set_column(at, table.field(at), [files])
    )
    folder = write_hashes(images, tmp_path / "out", ConsoleLog())
    found = read_table(folder / "train-00002.parquet", None, ClipFeatures.HASHES)
    assert found.column("key").to_pylist() == keys
    assert found.column("hash").to_pylist() == hash_of(*files).tolist()
    assert sorted(p.name for p in folder.iterdir()) == images.names()


def test_what_is_no_image_is_an_error():
    with pytest.raises(ImageError, match="not_image"):
        grey_of(b"no image")
