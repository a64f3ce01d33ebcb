"""The step ``ship``: what is committed, in half precision, and how the training stands."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from data.scenes.objects import THINGS
from gill.backbones.embedded.generator import WEIGHTS
from gill.backbones.image_generator import new_sampler
from tasks.embedded_training.autoencoder import (
    AUTOENCODER_BATCH,
    AUTOENCODER_RUN,
    DECODER_RUN,
    load_autoencoder,
)
from tasks.embedded_training.common import SHIPPED, load
from tasks.embedded_training.generator import (
    BATCH,
    CHUNK,
    CURRICULUM,
    LEARNING_RATE,
    PASSES,
    averaged_unet,
)
from tasks.embedded_training.parser import PARSER_BATCH, PARSER_RUN, load_text_encoder, new_codes
from tasks.embedded_training.reader import READER_BATCH, READER_RUN, load_reader

MOST_BYTES = 30 << 20


def ship(folder: Path, out: Path = SHIPPED) -> dict[str, float]:
    """Write the weights as they stand and return the size and the images that the UNet has seen.

    Raises:
        ValueError: they are larger than what may be committed.
    """
    unet, images = averaged_unet(folder / "generator.pt")
    unet.half().save_pretrained(out / "unet")
    config = out / "unet" / "config.json"
    unet_config = json.loads(config.read_text())
    unet_config.pop("_name_or_path", None)
    unet_config["encoder_hid_dim_type"] = None  # the denoiser is put before it at each load
    config.write_text(json.dumps(unet_config, indent=2) + "\n")
    vae, (encoder, _), reader = (
        load_autoencoder(folder),
        load_text_encoder(folder),
        load_reader(folder),
    )
    codes = new_codes()
    write(codes, codes.shape, out / "codes")
    write(vae, vae.shape, out / "vae")
    write(encoder.layers, encoder.layers.shape, out / "text_layers")
    write(reader, reader.shape, out / "reader")
    new_sampler().save_pretrained(out / "scheduler")
    for heads in ("heads_pooled.safetensors", "heads.json"):
        if (folder / heads).exists():
            shutil.copyfile(folder / heads, out / heads)
    described = out / "training.json"
    done = json.loads(described.read_text())["steps_done"] if described.exists() else {}
    described.write_text(json.dumps(record(folder, images, done), indent=2) + "\n")
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    if size > MOST_BYTES:
        raise ValueError(f"{out} holds {size} bytes, more than {MOST_BYTES}; make a part smaller")
    return {"bytes": float(size), "images": float(images)}


def write(module: nn.Module, shape: Any, folder: Path) -> None:
    """Write one module of ours and its shape."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in module.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(asdict(shape), indent=2) + "\n")


def record(folder: Path, images: int, done: dict[str, int]) -> dict[str, Any]:
    """How the weights were made and where the training stands.

    Args:
        done: steps of parts whose checkpoints are gone: they are shipped as they were.
    """
    curriculum = [{"from_image": s.start, **asdict(s.world)} for s in CURRICULUM]
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "objects_known_to_vae_text_and_reader": len(THINGS),
        "generator": {
            "images_seen": images,
            "distinct_scenes": images // PASSES,
            "batch": BATCH,
            "chunk": CHUNK,
            "passes": PASSES,
            "learning_rate": LEARNING_RATE,
            "schedule": "flat after 200 updates; falls to zero over the last fifth of a run; "
            "what is shipped is the running average",
            "curriculum": curriculum,
        },
        "autoencoder": vars(AUTOENCODER_RUN) | {"batch": AUTOENCODER_BATCH},
        "decoder": vars(DECODER_RUN) | {"batch": AUTOENCODER_BATCH},
        "text_layers": vars(PARSER_RUN) | {"batch": PARSER_BATCH},
        "reader": vars(READER_RUN) | {"batch": READER_BATCH},
        "steps_done": done
        | {
            name: int(load(folder / f"{name}.pt")["step"])
            for name in ("autoencoder", "decoder", "parser", "reader", "generator")
            if (folder / f"{name}.pt").exists()
        },
    }
