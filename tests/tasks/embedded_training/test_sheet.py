"""Contact sheets of a generator: images in their places, from the code or from captions."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.scenes.grammar import World
from gill.backbones.embedded.autoencoder import AutoencoderShape, SceneAutoencoder
from gill.backbones.embedded.generator import UNetShape, new_unet
from gill.backbones.embedded.text_encoder import TextShape
from tasks.embedded_training.parser import new_codes, truth_of
from tasks.embedded_training.sheet import contact_sheet, images_from, rows_of


def test_each_image_stands_twice_as_large_above_its_caption(tmp_path):
    shades = torch.linspace(-1, 1, 5).view(5, 1, 1, 1)
    path = tmp_path / "deep" / "sheet.png"
    contact_sheet(shades.expand(5, 3, 64, 64), ["a cat " * 30, "", "x", "y", "z"], path, columns=2)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert sheet.shape == (3 * (128 + 48 + 6), 2 * 136, 3)
    for number, shade in enumerate([0, 64, 128, 191, 255]):
        x, y = number % 2 * 136, number // 2 * 182
        inside = sheet[y : y + 128, x : x + 128]
        assert (inside == shade).all(), number
    assert (sheet[128:176, :130] < 100).any()  # words below the first
    assert (sheet[128:176, 140:] == 255).all()  # and none below the second


def test_rows_of_the_truth_need_no_text_encoder(tmp_path):
    truth = truth_of(World(40), "test", 0, 3)
    rows, empty = rows_of(tmp_path, truth, None)
    assert torch.equal(rows, new_codes()(truth))
    assert torch.equal(empty, new_codes().empty())


@pytest.mark.slow
def test_images_are_decoded_samples_in_range():
    torch.manual_seed(0)
    unet = new_unet(UNetShape(latents=4, widths=(16, 32), heads=2), TextShape()).eval()
    vae = SceneAutoencoder(AutoencoderShape(channels=4, wide=16, middle=16)).eval()
    rows, empty = rows_of(None, truth_of(World(40), "test", 0, 3), None)
    images = images_from(unet, vae, rows, empty, steps=2, guidance=2.0)
    assert images.shape == (3, 3, 64, 64)
    assert float(images.abs().max()) <= 1
    # The place in the whole, not in the chunk, gives the seed.
    alone = images_from(unet, vae, rows[:1], empty, steps=2, guidance=2.0)
    torch.testing.assert_close(alone[0], images[0], atol=0.1, rtol=0.1)
