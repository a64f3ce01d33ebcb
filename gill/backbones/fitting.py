"""How the embedded backbones are trained from scratch; ``tasks/backbones`` drives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gill.training import Optimization, Trainer

KL_WEIGHT = 1e-3
CAPTION_DROPOUT = 0.1
TITLE_SHARE = 0.25


def batch_indices(count: int, batch_size: int, seed: int, start: int) -> Iterator[Tensor]:
    """Endless row numbers ``(batch_size,)`` in a new order each epoch, from batch ``start`` on."""
    per_epoch = max(1, count // batch_size)
    position = start
    while True:
        epoch, offset = divmod(position, per_epoch)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
        yield order[offset * batch_size : (offset + 1) * batch_size]
        position += 1


def autoencoder_trainer(vae: Any, images: Tensor, config: Optimization) -> Trainer:
    """Train a VAE with the absolute error and a light KL term.

    Args:
        vae: a diffusers AutoencoderKL.
        images: ``(n, 3, height, width)`` uint8; batches are row numbers.
    """
    vae.to(memory_format=torch.channels_last)

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        x = images[rows].float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
        if torch.rand(()) < 0.5:
            x = x.flip(-1)
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        reconstruction = (decoded.float() - x).abs().mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return {
            "loss": reconstruction + KL_WEIGHT * kl,
            "reconstruction": reconstruction,
            "kl": kl,
        }

    return Trainer(vae, loss, config)


@torch.no_grad()
def encode_latents(vae: Any, images: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """Posterior means and standard deviations ``(n, channels, h, w)`` of uint8 images."""
    means, deviations = [], []
    for part in images.split(batch_size):
        posterior = vae.encode(part.float().div(127.5).sub(1)).latent_dist
        means.append(posterior.mean)
        deviations.append(posterior.std)
    return torch.cat(means), torch.cat(deviations)


class AveragedDenoiser(nn.Module):
    """The exponential moving average of a UNet's weights, which is what is shipped."""

    def __init__(self, unet: nn.Module, decay: float) -> None:
        super().__init__()
        self.average = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def update(self, unet: nn.Module) -> None:
        """Move the average towards the weights of ``unet``."""
        self.average.update_parameters(unet)


def denoiser_trainer(
    unet: Any,
    scheduler: Any,
    latents: tuple[Tensor, Tensor],
    captions: Tensor,
    titles: Tensor,
    empty: Tensor,
    config: Optimization,
    decay: float = 0.998,
) -> Trainer:
    """Train a UNet to predict the velocity of noised latents (Salimans and Ho 2022, v-prediction).

    Args:
        latents: scaled means and deviations ``(n, c, h, w)``.
        captions: text-encoder output ``(n, tokens, dim)`` of the whole captions.
        titles: the same of the bare titles, used for a quarter of the examples, so that short
            prompts work too.
        empty: ``(1, tokens, dim)``, the output for "", which replaces a tenth of the prompts for
            classifier-free guidance.
        decay: of the average of weights, a companion called ``average``.
    """
    unet.to(memory_format=torch.channels_last)
    average = AveragedDenoiser(unet, decay)
    mean, deviation = latents
    denoise: Any = torch.compile(unet)  # 1.4 times the images a second on a CPU, for 100 s at first

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        clean = mean[rows] + deviation[rows] * torch.randn_like(mean[rows])
        noise = torch.randn_like(clean)
        times = torch.randint(0, scheduler.config.num_train_timesteps, (len(rows),))
        noised = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        short = torch.rand(len(rows), 1, 1) < TITLE_SHARE
        prompt = torch.where(short, titles[rows], captions[rows]).float()
        prompt = torch.where(torch.rand(len(rows), 1, 1) < CAPTION_DROPOUT, empty, prompt)
        predicted = denoise(
            noised.contiguous(memory_format=torch.channels_last), times, prompt
        ).sample
        return {"loss": F.mse_loss(predicted.float(), target)}

    return Trainer(
        unet, loss, config, lambda: average.update(unet), companions={"average": average}
    )


class ProjectionHeads(nn.Module):
    """The two trained heads of the embedded image-text model, each onto ``embed_dim``."""

    def __init__(self, image_dim: int, text_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(image_dim, embed_dim, bias=False)
        self.text = nn.Linear(text_dim, embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.659))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Scaled cosine similarities ``(n, n)`` of pooled features."""
        image = F.normalize(self.image(image), dim=-1)
        text = F.normalize(self.text(text), dim=-1)
        return self.logit_scale.exp().clamp(max=100.0) * image @ text.T


def heads_trainer(
    heads: ProjectionHeads, image: Tensor, text: Tensor, config: Optimization, noise: float = 0.1
) -> Trainer:
    """Train the heads with the symmetric contrastive loss on cached pooled features.

    Args:
        image: ``(n, image_dim)``; text: ``(n, text_dim)``.
        noise: deviation of the noise that is added to the features, relative to theirs.
    """
    image_noise, text_noise = noise * image.std(), noise * text.std()

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        x = image[rows] + image_noise * torch.randn_like(image[rows])
        y = text[rows] + text_noise * torch.randn_like(text[rows])
        logits = heads(x, y)
        labels = torch.arange(len(rows))
        return {"loss": (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2}

    return Trainer(heads, loss, config)
