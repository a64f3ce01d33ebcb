"""Models with the published sizes of the paper's parts and random weights: stand-ins for them.

They are loaded, read and run as the real ones are, so that what a run takes can be measured where
their weights are not at hand. The sizes are those of the configurations published with
``facebook/opt-6.7b``, ``openai/clip-vit-large-patch14`` and Stable Diffusion 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gill.backbones.testing.published_tokenizers import OPT_WORDS, clip_tokenizer

CLIP_VOCABULARY = 49_408
_DEVIATION = 0.02  # of OPT's weights before training


@dataclass(frozen=True)
class OptSize:
    """Sizes of an OPT, its layers apart."""

    layers: int = 32
    width: int = 4096
    heads: int = 32
    feedforward: int = 16_384
    vocabulary: int = 50_272
    positions: int = 2048
    words: int = OPT_WORDS

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of one layer."""
        return 4 * self.width**2 + 2 * self.width * self.feedforward

    @property
    def head_weights(self) -> int:
        """Weights of the output layer, which is the embedding matrix too."""
        return self.vocabulary * self.width


def _vit_l_14() -> dict[str, Any]:
    """open_clip's ``ViT-L-14-quickgelu``, which is told without importing it; a test compares."""
    return {
        "embed_dim": 768,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49_408,
            "width": 768,
            "heads": 12,
            "layers": 12,
        },
    }


@dataclass(frozen=True)
class ClipSize:
    """An image-text model as open_clip configures it."""

    model: dict[str, Any] = field(default_factory=_vit_l_14)

    @property
    def layers(self) -> int:
        """Of the vision tower."""
        return int(self.model["vision_cfg"]["layers"])

    def with_layers(self, layers: int) -> ClipSize:
        """The same with another depth of the vision tower."""
        return ClipSize(
            {**self.model, "vision_cfg": {**self.model["vision_cfg"], "layers": layers}}
        )

    @property
    def image_operations(self) -> int:
        """Operations of the products for one image."""
        vision = self.model["vision_cfg"]
        width, patch = int(vision["width"]), int(vision["patch_size"])
        tokens = (int(vision["image_size"]) // patch) ** 2 + 1
        layer = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
        return self.layers * layer + 2 * tokens * 3 * patch**2 * width


@dataclass(frozen=True)
class DiffusionSize:
    """A Stable Diffusion 1: UNet, autoencoder and CLIP's text encoder.

    Attributes:
        denoising, decoding: operations of the products for one image, in one pass of the UNet and
            in the decoder; ``counted_operations`` counts them.
    """

    image_size: int = 512
    denoising: float = 8.03e11
    decoding: float = 2.515e12
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: int = 2
    heads: int = 8
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    groups: int = 32
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12

    @property
    def latent_size(self) -> int:
        """Edge of the latents."""
        return self.image_size // 2 ** (len(self.vae_channels) - 1)


def opt(size: OptSize, dtype: torch.dtype) -> Any:
    """An ``OPTForCausalLM``. Made in its precision: 6.7B weights take 13.3 GB and no more."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        word_embed_proj_dim=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        ffn_dim=size.feedforward,
        max_position_embeddings=size.positions,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    with torch.device("meta"):
        model = OPTForCausalLM(config).to(dtype)
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=_DEVIATION)
            else:
                weight.fill_(float(name.endswith("norm.weight")))
    return model


def clip(size: ClipSize) -> nn.Module:
    """An open_clip ``CLIP``."""
    import open_clip

    made: nn.Module = open_clip.CLIP(**size.model)
    return made


def unet(size: DiffusionSize) -> Any:
    """The UNet of Stable Diffusion 1."""
    from diffusers import UNet2DConditionModel

    plain = len(size.channels) - 1
    return UNet2DConditionModel(
        sample_size=size.latent_size,
        in_channels=4,
        out_channels=4,
        block_out_channels=size.channels,
        layers_per_block=size.blocks,
        down_block_types=("CrossAttnDownBlock2D",) * plain + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * plain,
        cross_attention_dim=size.text_width,
        attention_head_dim=size.heads,  # diffusers' name; for this class it is the number of heads
        norm_num_groups=size.groups,
    )


def autoencoder(size: DiffusionSize) -> Any:
    """Its autoencoder."""
    from diffusers import AutoencoderKL

    levels = len(size.vae_channels)
    return AutoencoderKL(
        sample_size=size.image_size,
        latent_channels=4,
        block_out_channels=size.vae_channels,
        layers_per_block=size.blocks,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=size.groups,
    )


def diffusion(size: DiffusionSize) -> Any:
    """A ``StableDiffusionPipeline`` with the published scheduler."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=size.text_width,
        intermediate_size=4 * size.text_width,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads,
        max_position_embeddings=77,
        projection_dim=size.text_width,
        hidden_act="quick_gelu",
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(size),
        text_encoder=CLIPTextModel(text),
        tokenizer=clip_tokenizer(),
        unet=unet(size),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def counted_operations(size: DiffusionSize) -> tuple[float, float]:
    """``denoising`` and ``decoding`` of a size, as PyTorch counts them, without any weights."""
    from torch.utils.flop_counter import FlopCounterMode

    edge = size.latent_size
    with torch.device("meta"), torch.no_grad():
        denoiser, vae = unet(size), autoencoder(size)
        latents = torch.empty(1, 4, edge, edge)
        text = torch.empty(1, 77, size.text_width)
        with FlopCounterMode(display=False) as denoising:
            denoiser(latents, torch.ones(1), text)
        with FlopCounterMode(display=False) as decoding:
            vae.decode(latents)
    return float(denoising.get_total_flops()), float(decoding.get_total_flops())
