"""The frozen image generator: any diffusers text-to-image pipeline that takes prompt embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gill.backbones.decoding_in_parts import decode_in_parts
from gill.backbones.pipelines import UnsuitableGeneratorError, check_pipeline, read_pipeline
from gill.training import autocast


class ImageGenerator(nn.Module):
    """A diffusers pipeline seen as two functions: caption -> target, target -> images.

    A target is the text encoder's output. Where the pipeline also takes a pooled embedding (SDXL,
    Stable Diffusion 3, Flux) that is one more row of the target, filled up with zeros, so the
    mapper learns it like the other rows.

    Attributes:
        text_tokens: positions of the text encoder's output (77 in Stable Diffusion 1).
        pooled_dim: width of the pooled embedding, 0 where there is none.
        num_tokens: rows of a target: ``text_tokens``, and one more with a pooled embedding.
        dim: width of a target (768 in Stable Diffusion 1).
        image_size: edge of a generated image, in pixels.
        precision: of the sampler's matrix products, ``float32`` unless a recipe sets it.

    Raises:
        UnsuitableGeneratorError: the pipeline wants something that the mapper does not make.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__()
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.name = pipeline, name
        for part, module in pipeline.components.items():
            if isinstance(module, nn.Module):
                self.add_module(part, module)
        self.requires_grad_(False).eval()
        check_pipeline(name, type(pipeline))
        self._accepted = set(inspect.signature(pipeline.__call__).parameters)
        # Flux: guidance is an input of its denoiser and not a second pass, T5 gives the sequence.
        self._distilled = "true_cfg_scale" in self._accepted
        self.tokenizer = pipeline.tokenizer_2 if self._distilled else pipeline.tokenizer
        self.denoiser: nn.Module = getattr(pipeline, "unet", None) or pipeline.transformer
        self.precision = "float32"
        self._negative = "negative_prompt_embeds" in self._accepted and not self._distilled
        embeds, pooled = self._encode([""])
        self.text_tokens, self.dim = int(embeds.shape[1]), int(embeds.shape[2])
        self.pooled_dim = 0 if pooled is None else int(pooled.shape[-1])
        if self.pooled_dim > self.dim:
            why = f"has pooled embeddings of width {self.pooled_dim}, wider than its {self.dim}"
            raise UnsuitableGeneratorError(name, pipeline, why)
        self.num_tokens = self.text_tokens + (self.pooled_dim > 0)
        denoiser: Any = self.denoiser
        size = getattr(denoiser.config, "sample_size", None) or pipeline.default_sample_size
        size = size if isinstance(size, int) else size[0]
        self.image_size = size * int(pipeline.vae_scale_factor)
        decode_in_parts(pipeline.vae, self.image_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(p.device for p in self.parameters() if not p.is_meta)

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
        embeds, pooled = self._encode(captions)
        if pooled is None:
            return embeds
        row = F.pad(pooled, (0, self.dim - self.pooled_dim))[:, None]
        return torch.cat([embeds, row], dim=1)

    @torch.no_grad()
    def _encode(
        self, captions: Sequence[str], negative: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The prompt's embeddings and its pooled embedding, or those that guidance steers from."""
        arguments: dict[str, Any] = {
            "prompt": list(captions),
            "prompt_2": list(captions),
            "prompt_3": list(captions),
            "num_images_per_prompt": 1,
            "device": self.device,
            "do_classifier_free_guidance": negative,
        }
        taken = inspect.signature(self.pipeline.encode_prompt).parameters
        try:
            encoded = self.pipeline.encode_prompt(
                **{name: value for name, value in arguments.items() if name in taken}
            )
        except (AttributeError, TypeError, ValueError) as error:
            why = f"cannot encode a prompt: {error}"
            raise UnsuitableGeneratorError(self.name, self.pipeline, why) from error
        if self._distilled:
            encoded = (encoded[0], None, encoded[1], None)  # and the positions of its tokens
        pools = "pooled_prompt_embeds" in self._accepted
        if len(encoded) != (4 if pools else 2):
            why = f"encodes a prompt as {len(encoded)} tensors, which is not known here"
            raise UnsuitableGeneratorError(self.name, self.pipeline, why)
        embeds, pooled = encoded[int(negative)], encoded[2 + int(negative)] if pools else None
        if not isinstance(embeds, Tensor) or embeds.ndim != 3 or len(embeds) != len(captions):
            why = "does not encode prompts as one tensor (prompts, tokens, width)"
            raise UnsuitableGeneratorError(self.name, self.pipeline, why)
        return embeds, pooled

    @torch.no_grad()
    def generate(
        self,
        prompt_embeds: Tensor,
        seeds: Sequence[int],
        guidance_scale: float,
        steps: int,
        batch_size: int = 64,
    ) -> Tensor:
        """Sample one image for each prompt embedding.

        Args:
            prompt_embeds: ``(n, num_tokens, dim)``.
            seeds: ``n`` seeds; an image depends on its own seed and prompt, not on its batch.
            guidance_scale: classifier-free guidance; 1 turns it off. Flux takes it as an input of
                its denoiser instead.
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
        denoiser = next(self.denoiser.parameters())
        if denoiser.is_meta:
            raise ValueError(f"{self.name} was loaded with its text encoder alone and samples none")
        most = int(self.pipeline.scheduler.config.get("num_train_timesteps") or steps)
        if steps > most:
            raise ValueError(f"steps is {steps}; {self.name} was trained on {most} noise levels")
        dtype = denoiser.dtype
        fixed: dict[str, Tensor] = {}
        if self._negative:
            names = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
            found = self._encode([""], negative=True)
            fixed = {n: v.to(dtype) for n, v in zip(names, found, strict=True) if v is not None}
        images = []
        for start in range(0, len(prompt_embeds), batch_size):
            part = prompt_embeds[start : start + batch_size].to(self.device, dtype)
            generators = [
                torch.Generator().manual_seed(s) for s in seeds[start : start + len(part)]
            ]
            prompts = {"prompt_embeds": part[:, : self.text_tokens]}
            if self.pooled_dim:
                prompts["pooled_prompt_embeds"] = part[:, -1, : self.pooled_dim]
            prompts |= {n: v.expand(len(part), *v.shape[1:]) for n, v in fixed.items()}
            with autocast(self.device, self.precision):
                result = self.pipeline(
                    **prompts,
                    generator=generators,
                    guidance_scale=guidance_scale,
                    num_inference_steps=steps,
                    output_type="pt",
                )
            images.append(result.images.float().cpu())
        return torch.cat(images)


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


def new_sampler() -> Any:
    """What samples from that noise: 5 steps are as good as 10 of DDIM (docs/experiments.md)."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler.from_config(new_scheduler().config, final_sigmas_type="zero")


def load_pretrained(name: str, device: torch.device, sampler: bool = True) -> ImageGenerator:
    """Load any text-to-image pipeline from a folder or the Hugging Face hub.

    Args:
        sampler: without it the text encoder alone has weights: enough for targets, not for images.

    Raises:
        UnsuitableGeneratorError: the mapper's output cannot drive it.
        IncompleteWeightsError: tensors are missing, left over or of another shape.
    """
    return ImageGenerator(read_pipeline(name, device, sampler), name)


class TextToImage:
    """Any diffusers text-to-image pipeline as it is, from text: a baseline, not a part of GILL."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.pipeline = name, read_pipeline(name, device, driven=False)
        self.pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], guidance_scale: float, steps: int
    ) -> list[Image.Image]:
        """One image for each prompt and seed."""
        images: list[Image.Image] = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            result = self.pipeline(
                prompt,
                generator=torch.Generator().manual_seed(seed),
                guidance_scale=guidance_scale,
                num_inference_steps=steps,
            )
            images += result.images
        return images
