"""Micro versions of the three frozen parts with random weights: seconds instead of minutes.

They are real models of the real classes (OPT, an open_clip ViT, a Stable Diffusion pipeline) with
fixed random weights; only their sizes are small.
"""

from __future__ import annotations

from typing import Any

import torch

from gill.backbones.image_generator import ImageGenerator, new_scheduler
from gill.backbones.language import LanguageModel
from gill.backbones.vision import VisionEncoder

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ,.()&'-:/"


def tokenizer(max_length: int = 64) -> Any:
    """A character tokenizer: lower-case letters, digits and some punctuation; BOS first."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *_LETTERS]
    core = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=max_length,
    )


def language_model(seed: int = 0) -> LanguageModel:
    """A 2-layer OPT of width 32."""
    from transformers import OPTConfig, OPTForCausalLM

    words = tokenizer()
    config = OPTConfig(
        vocab_size=len(words),
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(OPTForCausalLM(config), words, "tiny OPT")


def llama_model(tied: bool, seed: int = 1) -> LanguageModel:
    """A 2-layer Llama of width 32: rotary positions, shared keys, an output layer tied or not."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(LlamaForCausalLM(config), words, "tiny Llama")


def vision_encoder(seed: int = 0) -> VisionEncoder:
    """A 2-layer open_clip ViT of width 32 on 32 pixels, with a 1-layer text tower."""
    import open_clip
    from open_clip.transform import image_transform

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg=open_clip.CLIPVisionCfg(
                layers=2, width=32, head_width=16, patch_size=8, image_size=32
            ),
            text_cfg=open_clip.CLIPTextCfg(
                context_length=32, vocab_size=49408, width=16, heads=2, layers=1
            ),
        )
    preprocess = image_transform(32, is_train=False)
    return VisionEncoder(model, preprocess, open_clip.SimpleTokenizer(context_length=32), "tiny")


def autoencoder(**changes: Any) -> Any:
    """A VAE from 16 pixels to 8 x 8 x 4 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=16,
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        **changes,
    )


def unet(cross_attention_dim: int, **changes: Any) -> Any:
    """A UNet on those latents."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
        norm_num_groups=2,
        **changes,
    )


def image_generator(seed: int = 0) -> ImageGenerator:
    """A micro StableDiffusionPipeline: 16 pixels, targets of 8 x 16."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    words = tokenizer(max_length=8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = autoencoder()
        denoiser = unet(16)
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=8,
                projection_dim=16,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=words,
        unet=denoiser,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return ImageGenerator(pipeline, "tiny")
