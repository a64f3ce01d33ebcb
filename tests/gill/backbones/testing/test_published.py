"""Stand-ins have the published sizes; nothing of that size is made here."""

import open_clip
import pytest
import torch
from micro_rehearsal import PUBLISHED

from flows.rehearsal.sizes import REHEARSALS
from gill.backbones.testing import published
from gill.backbones.testing.published import ClipSize, DiffusionSize, OptSize


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_clip_is_open_clips_own():
    assert ClipSize().model == open_clip.get_model_config("ViT-L-14-quickgelu")


def test_the_published_models_have_the_known_numbers_of_weights():
    with torch.device("meta"):
        size = DiffusionSize()
        assert parameters(published.unet(size)) == 859_520_964
        assert parameters(published.autoencoder(size)) == 83_653_863
    opt = OptSize()
    products = opt.layers * opt.layer_weights + opt.head_weights
    assert products == pytest.approx(6.65e9, rel=0.01)


@pytest.mark.parametrize("size", [DiffusionSize(), REHEARSALS["opt-6.7b"].parts.generator])
def test_operations_are_those_that_pytorch_counts(size):
    denoising, decoding = published.counted_operations(size)
    assert denoising == pytest.approx(size.denoising, rel=0.01)
    assert decoding == pytest.approx(size.decoding, rel=0.01)


def test_operations_of_a_tower_are_those_that_pytorch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    tower = published.clip(PUBLISHED.vision).train()  # else attention is one kernel, not counted
    with FlopCounterMode(display=False) as counted:
        tower.visual.transformer(tower.visual._embeds(torch.zeros(1, 3, 32, 32)))
    assert counted.get_total_flops() == pytest.approx(PUBLISHED.vision.image_operations, rel=0.1)


def test_an_opt_is_whole_and_tied():
    size = PUBLISHED.language
    model = published.opt(size, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.lm_head.weight is model.get_input_embeddings().weight
    norm = model.model.decoder.layers[0].final_layer_norm
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()
    weights = model.model.decoder.layers[0].fc1.weight
    assert weights.numel() == size.width * size.feedforward
    assert float(weights.detach().float().std()) == pytest.approx(0.02, rel=0.1)
    layer = sum(p.numel() for p in model.model.decoder.layers[0].parameters() if p.ndim > 1)
    assert layer == size.layer_weights
