"""Trains the embedded recipe's backbones on the pack's training split, resumably.

Work in progress lies in ``var/backbones``; what is shipped is written to ``data/embedded/weights``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.io.image_decoder import decode
from data.sources.base import Pair
from data.sources.embedded_pack import EmbeddedPack
from gill.backbones import fitting, image_generator, vision
from gill.evaluation.retrieval import recall
from gill.training import Optimization, Trainer
from tasks.parts.identity import GENERATOR, HEADS, WEIGHTS
from tasks.paths import var_folder
from tasks.tracking.stage_log import Eta
from tasks.training.checkpoints import restore, save_checkpoint

logger = logging.getLogger("gill.backbones")

HEADS_RUN = Optimization(
    steps=600, weight_decay=0.1, warmup_steps=50, schedule="cosine", gradient_clip=1.0
)
AUTOENCODER_RUN = Optimization(
    steps=1800,
    learning_rate=8e-4,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    warmup_steps=100,
    schedule="trapezoid",
    precision="bfloat16",
    seed=1,
)
DENOISER_RUN = Optimization(
    steps=6400,
    learning_rate=6e-4,
    betas=(0.9, 0.99),
    warmup_steps=200,
    schedule="trapezoid",
    precision="bfloat16",
    seed=1,
)
HEADS_BATCH, AUTOENCODER_BATCH, DENOISER_BATCH = 512, 32, 128


def work_folder() -> Path:
    """Where checkpoints and cached tensors lie while the backbones are made."""
    folder = var_folder() / "backbones" / "training"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_heads() -> dict[str, float]:
    """Train the two projection heads on frozen features; report recall on the validation split."""
    encoder = vision.load_embedded(None)
    image, text = {}, {}
    for split in ("train", "validation"):
        pairs = list(EmbeddedPack().pairs(split))
        image[split] = _pooled_images(encoder, pairs)
        text[split] = _pooled_text(encoder, [p.caption for p in pairs])
    torch.manual_seed(0)
    heads = fitting.ProjectionHeads(encoder.pooled_dim, text["train"].shape[1], vision.EMBEDDED_DIM)
    trainer = fitting.heads_trainer(heads, image["train"], text["train"], HEADS_RUN, noise=0.45)
    _drive(trainer, "heads", len(image["train"]), HEADS_BATCH)
    heads.eval().requires_grad_(False)
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    state = {k: v.half() if v.ndim else v for k, v in heads.state_dict().items()}
    save_file(state, HEADS)
    seen = torch.nn.functional.normalize(heads.image(image["validation"]), dim=-1)
    read = torch.nn.functional.normalize(heads.text(text["validation"]), dim=-1)
    return recall(read, seen)


def train_autoencoder() -> dict[str, float]:
    """Train the VAE; report the mean absolute error on the validation split, in [-1, 1]."""
    torch.manual_seed(0)
    vae = image_generator.new_autoencoder()
    images = _pixels("train")
    trainer = fitting.autoencoder_trainer(vae, images, AUTOENCODER_RUN)
    _drive(trainer, "autoencoder", len(images), AUTOENCODER_BATCH)
    vae.eval().to(memory_format=torch.contiguous_format).save_pretrained(work_folder() / "vae")
    held_out = _pixels("validation")
    with torch.no_grad():
        x = held_out.float().div(127.5).sub(1)
        errors = [
            (vae.decode(vae.encode(p).latent_dist.mode()).sample - p).abs().mean(dim=(1, 2, 3))
            for p in x.split(64)
        ]
    return {"validation_absolute_error": float(torch.cat(errors).mean())}


def train_denoiser() -> dict[str, float]:
    """Train the UNet on the VAE's latents."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(work_folder() / "vae").eval()
    cached = _cached_inputs(vae)
    torch.manual_seed(0)
    unet = image_generator.new_unet(int(cached["captions"].shape[-1]))
    trainer = fitting.denoiser_trainer(
        unet,
        image_generator.new_scheduler(),
        (cached["mean"], cached["deviation"]),
        cached["captions"],
        cached["titles"],
        cached["empty"].float(),
        DENOISER_RUN,
    )
    losses = _drive(trainer, "denoiser", len(cached["mean"]), DENOISER_BATCH)
    averaged: Any = trainer.companions["average"]
    averaged.average.module.to(memory_format=torch.contiguous_format).save_pretrained(
        work_folder() / "unet"
    )
    return {"loss": losses}


def ship_generator() -> dict[str, float]:
    """Write the generator in half precision with its card, and return its size."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    vae = AutoencoderKL.from_pretrained(work_folder() / "vae")
    scale = float(load_file(work_folder() / "inputs.safetensors")["scale"])
    vae.register_to_config(scaling_factor=scale)
    vae.half().save_pretrained(GENERATOR / "vae")
    unet = UNet2DConditionModel.from_pretrained(work_folder() / "unet")
    unet.half().save_pretrained(GENERATOR / "unet")
    image_generator.new_sampler().save_pretrained(GENERATOR / "scheduler")
    for config in GENERATOR.glob("*/config.json"):
        described = json.loads(config.read_text())
        described.pop("_name_or_path", None)  # the folder in which it was trained
        config.write_text(json.dumps(described, indent=2) + "\n")
    size = sum(f.stat().st_size for f in GENERATOR.rglob("*") if f.is_file())
    settings = {"autoencoder": vars(AUTOENCODER_RUN), "denoiser": vars(DENOISER_RUN)}
    made = {
        "made": datetime.now(UTC).date().isoformat(),
        "batch_sizes": {"autoencoder": AUTOENCODER_BATCH, "denoiser": DENOISER_BATCH},
        "settings": settings,
    }
    (GENERATOR / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    return {"bytes": float(size)}


def sample_sheet(captions: list[str], path: Path, guidance_scale: float, steps: int) -> None:
    """Save a sheet of images of the shipped generator, one for each caption."""
    from torchvision.utils import save_image

    generator = image_generator.load_embedded(GENERATOR)
    embeds = generator.encode_text(captions)
    images = generator.generate(embeds, list(range(len(captions))), guidance_scale, steps)
    save_image(images, path, nrow=8)


def _drive(trainer: Trainer, name: str, count: int, batch_size: int, every: int = 200) -> float:
    checkpoint = work_folder() / f"{name}.pt"
    resumed = restore(checkpoint, trainer)
    eta, average = Eta(10.0), 0.0
    for report in trainer.run(
        fitting.batch_indices(count, batch_size, trainer.config.seed, resumed)
    ):
        loss = float(report.losses["loss"])
        average = loss if average == 0.0 else 0.98 * average + 0.02 * loss
        if line := eta.line(report.step, trainer.config.steps, f"{name} steps", resumed):
            logger.info("%s, loss %.4f", line, average)
        if report.step % every == 0 or report.step == trainer.config.steps:
            save_checkpoint(checkpoint, trainer)
    return average


def _cached_inputs(vae: Any) -> dict[str, Tensor]:
    path = work_folder() / "inputs.safetensors"
    if path.exists():
        return load_file(path)
    mean, deviation = fitting.encode_latents(vae, _pixels("train"))
    scale = 1 / mean.std()
    encoder = image_generator.assemble(
        image_generator.new_unet(384), vae, image_generator.new_scheduler(), "text only"
    )
    pairs = list(EmbeddedPack().pairs("train"))
    tensors = {
        "mean": mean * scale,
        "deviation": deviation * scale,
        "scale": scale,
        "captions": _encode(encoder.encode_text, [p.caption for p in pairs]).half(),
        "titles": _encode(encoder.encode_text, [p.title for p in pairs]).half(),
        "empty": encoder.encode_text([""]).half(),
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return tensors


def _encode(encode: Callable[[list[str]], Tensor], texts: list[str]) -> Tensor:
    return torch.cat([encode(texts[i : i + 128]) for i in range(0, len(texts), 128)])


def _images(pairs: list[Pair]) -> Iterator[Image.Image]:
    for pair in pairs:
        yield decode(pair.image or b"")


def _pixels(split: str) -> Tensor:
    size = (image_generator.EMBEDDED_SIZE, image_generator.EMBEDDED_SIZE)
    images = [
        np.asarray(image.resize(size, Image.Resampling.LANCZOS))
        for image in _images(list(EmbeddedPack().pairs(split)))
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _pooled_images(encoder: vision.VisionEncoder, pairs: list[Pair]) -> Tensor:
    prepared = list(_images(pairs))
    return torch.cat(
        [encoder.pooled(encoder.prepare(prepared[i : i + 64])) for i in range(0, len(prepared), 64)]
    )


@torch.no_grad()
def _pooled_text(encoder: vision.VisionEncoder, captions: list[str]) -> Tensor:
    tower = encoder.model.text
    parts = []
    for start in range(0, len(captions), 128):
        tokens = encoder.tokenizer(captions[start : start + 128])
        mask = (tokens != tower.config.pad_token_id).long()
        parts.append(tower.pooler(tower.transformer(tokens, attention_mask=mask), mask))
    return torch.cat(parts)
