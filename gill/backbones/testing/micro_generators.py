"""Micro image generators of several families: real pipelines of diffusers, random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from gill.backbones.image_generator import new_scheduler
from gill.backbones.testing import micro_models


def text_encoder(kind: str, width: int, projection: int | None = None) -> Any:
    """A 2-layer CLIP text encoder."""
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


def sd2() -> Any:
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


def sdxl(zeros: bool = True) -> Any:
    """As Stable Diffusion XL: two text encoders and a pooled embedding."""
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


def sd3() -> Any:
    """As Stable Diffusion 3, without the T5 encoder."""
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


def flux() -> Any:
    """As Flux 1: T5 gives the sequence, CLIP the pooled embedding."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=micro_models.autoencoder(shift_factor=0.0, scaling_factor=1.5),
        text_encoder=text_encoder("CLIPTextModel", 16),
        tokenizer=micro_models.tokenizer(max_length=8),
        text_encoder_2=T5EncoderModel(
            T5Config(
                vocab_size=len(micro_models.tokenizer()),
                d_model=24,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=2,
            )
        ),
        tokenizer_2=micro_models.tokenizer(max_length=8),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
    )
    pipeline.default_sample_size = 8  # 128 in the released models, which no configuration says
    return pipeline


PIPELINES: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "sd1": ("Stable Diffusion 1", lambda: micro_models.image_generator().pipeline),
    "sd2": ("Stable Diffusion 2", sd2),
    "sdxl": ("Stable Diffusion XL", sdxl),
    "sd3": ("Stable Diffusion 3, without T5", sd3),
    "flux": ("Flux 1", flux),
}
REFUSED: Mapping[str, tuple[str, str]] = {
    "Flux2Pipeline": ("Flux 2", "several layers of a language model"),
    "QwenImagePipeline": ("Qwen-Image", "needs prompt_embeds_mask"),
    "ZImagePipeline": ("Z-Image", "lists of embeddings"),
    "IFPipeline": ("DeepFloyd IF", "cascade"),
    "PixArtAlphaPipeline": ("PixArt", "needs prompt_attention_mask"),
    "SanaPipeline": ("Sana", "needs prompt_attention_mask"),
    "HunyuanDiTPipeline": ("HunyuanDiT", "needs prompt_attention_mask"),
    "KandinskyV22CombinedPipeline": ("Kandinsky 2.2", "prior"),
    "StableCascadeCombinedPipeline": ("Stable Cascade", "prior"),
}


def built(name: str, seed: int = 5) -> Any:
    """A pipeline of a family, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PIPELINES[name][1]()
