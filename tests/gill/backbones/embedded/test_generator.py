"""The parts of the embedded generator, as they are written to be shipped and read again."""

import pytest
import torch
from torch import nn

from gill.backbones.embedded.autoencoder import AutoencoderShape, SceneAutoencoder
from gill.backbones.embedded.codes import TruthCodes, TruthSizes
from gill.backbones.embedded.generator import (
    WEIGHTS,
    UNetShape,
    load_autoencoder,
    load_codes,
    load_reader,
    load_unet,
    load_weights,
    new_unet,
)
from gill.backbones.embedded.reader import ReaderShape, SceneReader
from gill.backbones.embedded.row_denoiser import RowDenoiser
from gill.backbones.embedded.text_encoder import TextShape
from tasks.embedded_training.shipping import write


def test_shipped_modules_come_back_with_their_shape_and_frozen(tmp_path):
    torch.manual_seed(0)
    vae = SceneAutoencoder(AutoencoderShape(channels=4, wide=16, middle=16)).eval()
    reader = SceneReader(ReaderShape(3, (3, 4), 2, middle=16, wide=16, blocks=1)).eval()
    for module, load in ((vae, load_autoencoder), (reader, load_reader)):
        folder = tmp_path / type(module).__name__
        write(module, module.shape, folder)
        loaded = load(folder)
        assert loaded.shape == module.shape  # its tuples too, which JSON makes lists of
        assert not loaded.training
        for name, value in loaded.state_dict().items():
            assert value.dtype in (torch.float32, torch.int64)
            own = module.state_dict()[name]
            assert torch.equal(value, own.half().float() if own.is_floating_point() else own), name
        assert not any(p.requires_grad for p in loaded.parameters())


def test_weights_of_another_shape_are_refused(tmp_path):
    write(nn.Linear(3, 2), UNetShape(), tmp_path)
    with pytest.raises(RuntimeError, match=r"size mismatch for weight"):
        load_weights(nn.Linear(4, 2), tmp_path / WEIGHTS)
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
        load_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path / WEIGHTS)


def test_a_unet_has_the_shape_asked_for_and_plain_attention(tmp_path):
    unet = new_unet(UNetShape(edge=4, latents=2, widths=(16, 32), heads=2), TextShape(width=24))
    unet.half().save_pretrained(tmp_path)
    codes = TruthCodes(TruthSizes(3, 3, 2, 3, 3, width=24))
    loaded = load_unet(tmp_path, codes)
    assert loaded.dtype == torch.float32
    latents, rows = torch.randn(1, 2, 4, 4), torch.randn(1, 5, 24)
    made = []
    for one, given in ((unet.float(), RowDenoiser(codes)(rows)), (loaded, rows)):
        assert {type(p).__name__ for p in one.attn_processors.values()} == {"AttnProcessor"}
        made.append(one(latents, 3, given).sample)
        assert made[-1].shape == (1, 2, 4, 4)
    torch.testing.assert_close(made[0], made[1], atol=0.02, rtol=0.02)  # stored in 16 bits


def test_the_shipped_code_is_the_one_that_is_trained_on(tmp_path):
    codes = TruthCodes(TruthSizes(3, 3, 2, 3, 3, width=24))
    write(codes, codes.shape, tmp_path)
    loaded = load_codes(tmp_path)
    truth = torch.tensor([[1, 2, 0, 0, -1, -1, 0, -1, -1, 1, 2]])
    torch.testing.assert_close(loaded(truth), codes(truth), atol=3e-3, rtol=0)
