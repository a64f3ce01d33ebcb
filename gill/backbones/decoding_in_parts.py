"""The last step of sampling in bounded memory: latents of many images, decoded a few at a time.

A batch that the UNet takes with ease is too large for the autoencoder's decoder: 64 images of 512
pixels have 4.3 GB in each of its widest layers, in half precision.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

DECODED_PIXELS = 8 * 512**2  # of the images that are decoded together


def decode_in_parts(vae: Any, image_size: int) -> None:
    """Let an autoencoder decode at most ``DECODED_PIXELS`` pixels at once, one image at least."""
    if not isinstance(vae.decode, partial):  # an autoencoder may serve two generators
        vae.decode = partial(_decode, vae.decode, max(1, DECODED_PIXELS // image_size**2))


def _decode(decode: Any, most: int, latents: Tensor, return_dict: bool = True, **named: Any) -> Any:
    parts = [decode(part, return_dict=return_dict, **named) for part in latents.split(most)]
    if not return_dict:
        return (torch.cat([part[0] for part in parts]),)
    whole = parts[0]
    whole.sample = torch.cat([part.sample for part in parts])
    return whole
