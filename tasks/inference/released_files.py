"""The files of the released layout, read as what a stranger has sent, and written."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from data.io.atomic import write_bytes, write_json
from gill.released_args import ARGS, ReleasedError
from gill.released_checkpoint import (
    DECISION,
    WEIGHTS,
    ReleasedCheckpoint,
    from_released,
    to_released,
)

_MOST_ARGS = 1 << 20  # bytes of model_args.json


def read_released(folder: Path) -> ReleasedCheckpoint:
    """Read a folder in the released layout.

    Nothing in it is run: pickles are read as tensors alone, and links out of it are refused.

    Raises:
        ReleasedError: a file is missing, no such file or damaged, or they do not fit each other.
    """
    args = _args(_inside(folder, ARGS))
    state = _state(_inside(folder, WEIGHTS))
    decision = _state(_inside(folder, DECISION)) if (folder / DECISION).is_symlink() or (
        folder / DECISION
    ).exists() else None  # fmt: skip
    return from_released(args, state, decision)


def write_released(folder: Path, checkpoint: ReleasedCheckpoint) -> None:
    """Write a checkpoint in the released layout.

    Raises:
        ReleasedError: the folder holds something, or the layout has no place for the model.
        WriteError: there is no room or no way to write.
    """
    args, state, decision = to_released(checkpoint)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ReleasedError(f"{folder} is there and holds something; name a new folder")
    write_bytes(folder / WEIGHTS, _saved(state))
    if decision is not None:
        write_bytes(folder / DECISION, _saved(decision))
    write_json(folder / ARGS, args)  # last: without it there is no checkpoint


def _saved(state: dict[str, torch.Tensor]) -> bytes:
    held = io.BytesIO()
    torch.save({"state_dict": {n: v.detach().cpu().clone() for n, v in state.items()}}, held)
    return held.getvalue()


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder itself."""
    path = folder / name
    if not path.exists() and not path.is_symlink():
        raise ReleasedError(
            f"{folder} has no {name}; a released checkpoint is a folder with {ARGS} and {WEIGHTS}, "
            f"and {DECISION} where it has a decision model"
        )
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ReleasedError(
            f"{path} is a link to {path.resolve()}, outside its folder; copy the file in its place"
        )
    if not path.is_file():
        raise ReleasedError(f"{path} is no file; put the checkpoint's {name} there")
    return path


def _args(path: Path) -> Any:
    if (size := path.stat().st_size) > _MOST_ARGS:
        raise ReleasedError(f"{path} has {size:,} bytes, which no settings have; take another file")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ReleasedError(f"{path} is no JSON: {error}; take the authors' file anew") from error


def _state(path: Path) -> Any:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        cause = str(error).partition("\n")[0]
        refused = next(
            (line.strip() for line in str(error).splitlines() if "GLOBAL" in line), cause
        )
        raise ReleasedError(
            f"{path} holds more than tensors and was not read, since a pickle can run code: "
            f"{refused}. Save {{'state_dict': tensors}} alone"
        ) from error
    except Exception as error:  # of bytes that are no pickle the unpickler raises whatever comes
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ReleasedError(
            f"{path} cannot be read ({path.stat().st_size:,} bytes): {cause}. It is cut or "
            "damaged: copy it again"
        ) from error
    if not isinstance(loaded, dict) or "state_dict" not in loaded:
        raise ReleasedError(f"{path} has no 'state_dict'; save {{'state_dict': tensors}}")
    return loaded["state_dict"]
