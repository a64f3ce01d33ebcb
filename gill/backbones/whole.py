"""What is loaded is whole: no tensor of a frozen part is missing, left over or of another shape.

Libraries fill what a checkpoint lacks with random numbers and only warn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SHOWN = 8  # tensors of a kind that a message lists
# Buffers that older versions of the libraries saved and newer ones compute: they hold no weights.
_LEFTOVERS = re.compile(
    r"(^|\.)(version|masked_bias|position_ids|inv_freq|attn\.bias|attn\.attention\.bias"
    r"|attention\.bias)$"
)


class IncompleteWeightsError(ValueError):
    """Weights that do not make up the model that they are loaded into; lists the tensors."""


def check_whole(name: str, info: Mapping[str, Any]) -> None:
    """See that loading filled every tensor and left none over.

    Args:
        name: of what was loaded. info: the loading information of transformers or diffusers.

    Raises:
        IncompleteWeightsError: lists tensors that are missing, unexpected or of another shape.
    """
    shapes = [
        f"{key} ({tuple(found)} instead of {tuple(wanted)})"
        for key, found, wanted in info.get("mismatched_keys") or ()
    ]
    problems = [
        _listed("lacks", info.get("missing_keys") or ()),
        _listed("has in other shapes", shapes),
        _listed("has beside them", filter(_is_weight, info.get("unexpected_keys") or ())),
        _listed("could not be read:", map(str, info.get("error_msgs") or ())),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise IncompleteWeightsError(
            f"the weights of {name} do not make up its model: the checkpoint {found}. Random "
            "numbers would stand in their place; download it anew, or name the model that it is of"
        )


def located(name: str, key: str) -> str:
    """A folder's path or a hub name, from what a recipe names.

    Args:
        name: of the part. key: the setting it is given by, for messages.

    Raises:
        FileNotFoundError: it is spelt as a path and nothing is there.
        ValueError: it is a single file, or neither a path nor a hub name.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_file():
        raise ValueError(f"{key} is {name!r}, a single file; {_remedy(path)}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.suffix in _FILES:
        raise FileNotFoundError(
            f"{key} is {name!r} and there is nothing at {path.absolute()}; give a folder that "
            "exists, or a hub name as owner/name"
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"{key} is {name!r}; give a folder, or a hub name as owner/name")
    return name


_FILES = {".gguf", ".safetensors", ".ckpt", ".bin", ".pt", ".pth"}


def _remedy(path: Path) -> str:
    if path.suffix == ".gguf":
        return (
            "load it with transformers (`from_pretrained(folder, gguf_file=...)`), save it with "
            "`save_pretrained` and give that folder"
        )
    if path.suffix in {".safetensors", ".ckpt"}:
        return (
            "if it is an image generator, read it with diffusers' `from_single_file`, save it with "
            "`save_pretrained` and give that folder; else give the folder that it lies in"
        )
    return "give a folder with the model's configuration and weights"


def check_language_folder(name: str, key: str) -> None:
    """See that a folder holds a whole causal LM, before transformers looks for something else.

    Raises:
        ValueError: it holds an adapter or GGUF files, or no configuration.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{key} is {name!r}, which holds an adapter (adapter_config.json): merge it into its "
            "base model with peft's `merge_and_unload`, save that and give its folder"
        )
    if (folder / "config.json").exists():
        return
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        raise ValueError(f"{key} is {name!r}, which holds GGUF files alone; {_remedy(gguf[0])}")
    raise ValueError(f"{key} is {name!r}, a folder without config.json: it holds no model")


def _is_weight(key: str) -> bool:
    return _LEFTOVERS.search(key) is None


def _listed(what: str, keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(names[:_SHOWN])}{more}" if names else ""
