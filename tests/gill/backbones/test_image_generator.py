"""Diffusers pipelines of several families as image generators: micro parts from their configs."""

import pytest
import torch

from gill.backbones import image_generator
from gill.backbones.image_generator import (
    ImageGenerator,
    UnsuitableGeneratorError,
    new_scheduler,
)
from gill.backbones.testing import micro_models
from tasks.parts.identity import GENERATOR


def text_encoder(kind, width, projection=None):
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=len(micro_models.tokenizer()),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=projection or width,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return getattr(transformers, kind)(config)


def sd2():
    """As Stable Diffusion 2: another width of the text encoder."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=micro_models.autoencoder(),
        text_encoder=text_encoder("CLIPTextModel", 24),
        tokenizer=micro_models.tokenizer(max_length=8),
        unet=micro_models.unet(24),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(zeros=True):
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=micro_models.autoencoder(),
        text_encoder=text_encoder("CLIPTextModel", 16),
        text_encoder_2=text_encoder("CLIPTextModelWithProjection", 24, 12),
        tokenizer=micro_models.tokenizer(max_length=8),
        tokenizer_2=micro_models.tokenizer(max_length=8),
        unet=micro_models.unet(
            40,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=12 + 6 * 4,
        ),
        scheduler=EulerDiscreteScheduler(),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )


def sd3():
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=48,
        pooled_projection_dim=16 + 12,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=micro_models.autoencoder(shift_factor=0.0, scaling_factor=1.5),
        text_encoder=text_encoder("CLIPTextModelWithProjection", 16),
        tokenizer=micro_models.tokenizer(max_length=8),
        text_encoder_2=text_encoder("CLIPTextModelWithProjection", 24, 12),
        tokenizer_2=micro_models.tokenizer(max_length=8),
        text_encoder_3=None,
        tokenizer_3=None,
    )


# pipeline, rows and width of a target, width of the pooled embedding
FAMILIES = {
    "sd2": (sd2, 8, 24, 0),
    "sdxl": (sdxl, 8 + 1, 40, 12),
    "sdxl-refinerless": (lambda: sdxl(zeros=False), 8 + 1, 40, 12),
    "sd3": (sd3, 8 + 256 + 1, 48, 28),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    make, *sizes = FAMILIES[request.param]
    torch.manual_seed(5)
    return ImageGenerator(make(), request.param), sizes


def test_sizes_are_read_from_the_parts(family):
    generator, (rows, width, pooled) = family
    assert (generator.num_tokens, generator.dim, generator.pooled_dim) == (rows, width, pooled)
    target = generator.encode_text(["a cat", "b"])
    assert target.shape == (2, rows, width)
    assert generator.image_size == 16
    if pooled:
        assert float(target[:, -1, :pooled].abs().max()) > 0
        assert float(target[:, -1, pooled:].abs().max()) == 0
    assert not any(p.requires_grad for p in generator.parameters())


def test_targets_drive_the_pipeline_as_its_own_text_does(family):
    generator, _ = family
    target = generator.encode_text(["a cat", "dog"])
    ours = generator.generate(target, [5, 6], 3.0, 2)
    theirs = generator.pipeline(
        ["a cat", "dog"], guidance_scale=3.0, num_inference_steps=2, output_type="pt",
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
    ).images  # fmt: skip
    assert ours.shape == (2, 3, 16, 16)
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=0)
    alone = generator.generate(target[1:], [6], 3.0, 2)
    torch.testing.assert_close(alone[0], ours[1], atol=1e-4, rtol=0)
    other = generator.generate(target.flip(0), [5, 6], 3.0, 2)
    assert float((other - ours).abs().max()) > 1e-4, (
        "the target has no fingerprint_fields on the image"
    )


def test_the_pooled_row_bears_on_the_image():
    torch.manual_seed(5)
    generator = ImageGenerator(sdxl(), "my-sdxl")
    target = generator.encode_text(["a cat"])
    changed = target.clone()
    changed[:, -1, : generator.pooled_dim] += 3
    images = [generator.generate(t, [5], 3.0, 2) for t in (target, changed)]
    assert float((images[0] - images[1]).abs().max()) > 1e-5


def test_a_pooled_embedding_wider_than_the_rows_is_refused():
    pipeline = sdxl()
    pipeline.text_encoder_2.text_projection = torch.nn.Linear(24, 99, bias=False)
    with pytest.raises(UnsuitableGeneratorError, match=r"my-sdxl.*width 99, wider than its 40"):
        ImageGenerator(pipeline, "my-sdxl")


def test_a_pipeline_that_needs_the_text_encoders_mask_is_refused():
    from diffusers import PixArtAlphaPipeline

    pipeline = PixArtAlphaPipeline(
        tokenizer=micro_models.tokenizer(8),
        text_encoder=None,
        vae=None,
        transformer=None,
        scheduler=None,
    )
    with pytest.raises(
        UnsuitableGeneratorError, match=r"my-pixart \(PixArt.*needs prompt_attention_mask"
    ):
        ImageGenerator(pipeline, "my-pixart")


def test_a_pipeline_without_prompt_embeddings_is_refused():
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline(unet=micro_models.unet(8), scheduler=new_scheduler())
    with pytest.raises(UnsuitableGeneratorError, match=r"plain .*does not take prompt_embeds"):
        ImageGenerator(pipeline, "plain")


@pytest.fixture(scope="module")
def generator():
    return image_generator.load_embedded(GENERATOR)


def test_a_generated_image_depends_on_its_seed_and_prompt_alone(generator):
    embeds = generator.encode_text(["red apple", "flag of france", "cat"])
    assert embeds.shape == (3, generator.num_tokens, generator.dim) == (3, 32, 384)
    together = generator.generate(embeds, [1, 2, 3], 3.0, 3)
    assert together.shape == (3, 3, 64, 64)
    assert 0 <= float(together.min()) <= float(together.max()) <= 1
    alone = generator.generate(embeds[1:2], [2], 3.0, 3)
    torch.testing.assert_close(alone[0], together[1], atol=1e-3, rtol=0)
    other = generator.generate(embeds[1:2], [9], 3.0, 3)
    assert float((alone - other).abs().mean()) > 0.01


def test_prompt_embeddings_equal_the_pipelines_own_text_path(generator):
    embeds = generator.encode_text(["red apple"])
    ours = generator.generate(embeds, [5], 3.0, 2)
    theirs = generator.pipeline(
        ["red apple"], guidance_scale=3.0, num_inference_steps=2, output_type="pt",
        generator=[torch.Generator().manual_seed(5)],
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=0)


def test_embeddings_of_another_shape_are_refused(generator):
    with pytest.raises(ValueError, match=r"\(77, 768\).*\(32, 384\)"):
        generator.generate(torch.zeros(1, 77, 768), [0], 1.0, 1)
