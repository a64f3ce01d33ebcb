"""The frozen vision encoder and scorer, with the real weights of the embedded one."""

import io

import pytest
import torch
from PIL import Image

from data.sources.embedded_pack import EmbeddedPack
from gill.backbones import vision
from gill.backbones.testing import micro_models
from gill.evaluation.retrieval import recall
from tasks.parts.identity import HEADS


def _images(pairs):
    return [Image.open(io.BytesIO(pair.image)).convert("RGB") for pair in pairs]


@pytest.fixture(scope="module")
def encoder():
    return vision.load_embedded(HEADS)


@pytest.mark.slow
def test_embedded_scorer_matches_held_out_captions_to_images(encoder):
    pairs = [p for p, _ in zip(EmbeddedPack().pairs("test"), range(100), strict=False)]
    pooled = encoder.pooled(encoder.prepare(list(_images(pairs))))
    assert pooled.shape == (100, 1280)
    found = recall(encoder.text([p.caption for p in pairs]), encoder.project(pooled))
    assert found["t2i_r1"] > 0.25  # chance is 0.01
    assert found["t2i_r10"] > 0.6


def test_folded_batch_norms_give_what_the_plain_model_gives(encoder):
    plain = vision.VisionEncoder(*vision.new_embedded(), "plain")
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in encoder.modules())
    size = encoder.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder.pooled(pixels), plain.pooled(pixels), atol=1e-5, rtol=1e-4)


def test_embedded_classifier_weights_are_in_place(encoder):
    # With the checkpoint's tensors in another order the features would hardly differ by image.
    pairs = [p for p, _ in zip(EmbeddedPack().pairs("test"), range(16), strict=False)]
    pooled = encoder.pooled(encoder.prepare(list(_images(pairs))))
    unit = torch.nn.functional.normalize(pooled - pooled.mean(0), dim=-1)
    assert float((unit @ unit.T).fill_diagonal_(0).max()) < 0.9


def test_tensor_and_image_preparation_agree(encoder):
    pairs = [p for p, _ in zip(EmbeddedPack().pairs("test"), range(8), strict=False)]
    images = list(_images(pairs))
    from torchvision.transforms.functional import to_tensor

    tensors = torch.stack([to_tensor(p) for p in images])
    a, b = encoder.prepare(images), encoder.prepare_tensor(tensors)
    assert float((a - b).abs().mean()) < 0.02


def test_pooled_feature_is_what_open_clip_projects():
    part = micro_models.vision_encoder()
    pixels = torch.randn(3, 3, 32, 32)
    expected = torch.nn.functional.normalize(part.model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(part.project(part.pooled(pixels)), expected, atol=1e-5, rtol=1e-5)
    assert part.pooled_dim == 32


def test_features_are_named_for_metrics():
    part = micro_models.vision_encoder()
    for name, wanted in (
        ("ViT-L-14-quickgelu", "vit_l_14_quickgelu"),
        ("embedded", "efficientnet"),
    ):
        part.name = name
        assert part.feature_name == wanted


def test_captions_are_scored_alike_in_any_batch():
    part, captions = micro_models.vision_encoder(), ["a cat", "two dogs on a beach", "x"]
    together = part.text(captions)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(part.text(captions, batch_size=2), together)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_a_tower_without_a_pooled_feature_is_refused_by_name():
    import open_clip

    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg=open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32),
        text_cfg=open_clip.CLIPTextCfg(
            context_length=8, vocab_size=99, width=16, heads=2, layers=1
        ),
    )
    with pytest.raises(
        ValueError, match=r"my-RN: the vision tower .ModifiedResNet. .* use an open_"
    ):
        vision.VisionEncoder(model, None, None, "my-RN")


def test_maps_of_each_block_for_a_perceptual_distance():
    part = micro_models.vision_encoder()
    maps = part.stages(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(2, 32, 4, 4)] * 2


def test_only_a_norm_behind_its_convolution_is_folded():
    torch.manual_seed(0)
    apart = torch.nn.BatchNorm2d(4)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), apart
    )
    for norm in (net[1], apart):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        torch.nn.init.normal_(norm.weight)
    net.eval()
    images = torch.randn(2, 3, 8, 8)
    expected = net(images)
    vision.fold_batch_norms(net)
    assert net[3] is apart
    assert isinstance(net[1], torch.nn.Identity)
    torch.testing.assert_close(net(images), expected, atol=1e-5, rtol=1e-5)


def test_sampled_images_are_normalised_by_hand():
    """What the generator samples comes as numbers from 0 to 1; the tower wants them about 0."""
    part = micro_models.vision_encoder()
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 32, 32)
    found = part.prepare_tensor(flat)
    expected = (flat - part.mean) / part.std
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found[0].max() < 0 < found[2].min()
    # Resizing a hard edge overshoots; what is beyond black and white is cut.
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1.0
    sharp = part.prepare_tensor(edge) * part.std + part.mean
    assert float(sharp.min()) == pytest.approx(0.0, abs=1e-6)
    assert float(sharp.max()) == pytest.approx(1.0, abs=1e-6)


def test_products_are_in_the_precision_that_is_asked_for():
    tower, kinds = micro_models.vision_encoder(), []
    tower.model.visual.transformer.resblocks[0].mlp.c_fc.register_forward_hook(
        lambda _, __, out: kinds.append(out.dtype)
    )
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, texts = tower.pooled(pixels), tower.text(["a cat"])
    tower.precision = "bfloat16"
    near = tower.pooled(pixels)
    assert kinds == [torch.float32, torch.bfloat16]
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0.05)
    assert not torch.equal(tower.text(["a cat"]), texts)
