"""Trained weights in files: written whole, read whole, put into modules that are made for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from data.artifacts import Artifact
from data.io.atomic import write_bytes
from data.manifest import DamagedArtifactError

Module = TypeVar("Module", bound=nn.Module)


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors whole or not at all.

    Raises:
        WriteError: there is no room or no way to write.
    """
    write_bytes(path, save({name: value.contiguous() for name, value in weights.items()}))


def read_weights(artifact: Artifact, path: Path) -> dict[str, Tensor]:
    """Read a file of tensors of an artifact.

    Raises:
        DamagedArtifactError: it cannot be read.
    """
    try:
        return load(path.read_bytes())  # not mapped: the file may be replaced meanwhile
    except (OSError, SafetensorError) as error:
        problem = {path.name: f"cannot be read: {error}"}
        raise DamagedArtifactError(artifact.stage, artifact.path, problem) from error


def with_weights(make: Callable[[], Module], weights: Mapping[str, Tensor]) -> Module:
    """A module with these weights, frozen.

    No random starting values are drawn for it: the generator that they come from is shared with
    whatever trains in the same process.
    """
    with torch.device("meta"):
        module = make()
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(False).eval()
