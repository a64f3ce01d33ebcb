"""What can be known to be wrong with devices and frozen parts before any work is done."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from tasks.config.parts import LanguageConfig, PartConfig, PartsConfig, RuntimeConfig, VisionConfig

OWN = ("embedded", "tiny")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_BYTES_QUANTIZED = {"none": 4.0, "8bit": 1.0, "4bit": 0.5}


class PartError(ValueError):
    """A frozen part that cannot be loaded as it is named; says why and what to do."""


class DeviceError(ValueError):
    """A device that is not there."""


def check_device(runtime: RuntimeConfig) -> None:
    """See that the devices of a recipe are there.

    Raises:
        DeviceError: names the devices that are.
    """
    import torch

    if runtime.device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    on_gpus = runtime.device.startswith("cuda") or (runtime.device == "auto" and count > 0)
    there = ["cpu", *(f"cuda:{number}" for number in range(count))]
    if torch.backends.mps.is_available():
        there.append("mps")
    known = {"auto", *there, *(("cuda",) if count else ())}
    missing = [name for name in runtime.device.split(",") if name not in known]
    if missing:
        raise DeviceError(
            f"runtime.device is {runtime.device!r} and there is no {' and no '.join(missing)}; "
            f"this machine has {', '.join(there)}"
        )
    if runtime.workers > count and on_gpus:
        raise DeviceError(
            f"runtime.workers is {runtime.workers}; each has a GPU of its own, and there are "
            f"{count}"
        )


def check_parts(parts: PartsConfig, runtime: RuntimeConfig, wanted: Collection[str]) -> None:
    """See that the frozen parts that are wanted are what their names say.

    Args:
        wanted: language, vision, generator.

    Raises:
        PartError: a name leads nowhere, or what it names does not fit this machine.
        gill.backbones.vision.ActivationMismatchError: an open_clip name and its tag disagree.
    """
    for name in wanted:
        part: PartConfig = getattr(parts, name)
        if part.name in OWN:
            continue
        if isinstance(part, VisionConfig):
            check_vision(part, f"parts.{name}.name", f"parts.{name}.pretrained")
        else:
            _check_name(part, f"parts.{name}")
        if isinstance(part, LanguageConfig):
            _check_language(part, runtime)


def check_vision(part: VisionConfig, name: str, tag: str) -> None:
    """See that open_clip has the architecture and the weights, and that they fit each other.

    Args:
        name, tag: the keys of the settings that name them.

    Raises:
        PartError: it has not. ActivationMismatchError: they do not fit.
    """
    import open_clip

    from gill.backbones.vision import check_activation

    if ":" in part.name:
        kind, _, folder = part.name.partition(":")
        if kind == "local-dir" and not Path(folder).is_dir():
            raise PartError(f"{name} is {part.name!r}, and there is no folder {folder}")
        return
    known = open_clip.list_models()
    if part.name not in known:
        near = get_close_matches(part.name, [*OWN, *known], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise PartError(f"{name} is {part.name!r}, which open_clip does not know{hint}")
    tags = open_clip.list_pretrained_tags_by_model(part.name)
    if part.pretrained and part.pretrained not in tags and not Path(part.pretrained).is_file():
        plain = part.name.removesuffix("-quickgelu")
        other = plain if plain != part.name else f"{plain}-quickgelu"
        has = part.pretrained in open_clip.list_pretrained_tags_by_model(other)
        raise PartError(
            f"{tag} is {part.pretrained!r}, which is no file and no weights of "
            f"{part.name}; {f'{other!r} has them' if has else 'there are ' + ', '.join(tags)}"
        )
    if not part.pretrained:
        raise PartError(
            f"{tag} is empty, so {part.name} would have random weights; name one of "
            f"{', '.join(tags) or 'no weights, so give a file'}"
        )
    check_activation(part.name, part.pretrained)


def _check_name(part: PartConfig, key: str) -> None:
    folder = Path(part.name)
    if folder.is_dir():
        if not any(folder.glob("*.json")):
            raise PartError(f"{key}.name is {part.name!r}, a folder without the files of a model")
        return
    near = get_close_matches(part.name, OWN, n=1, cutoff=0.75)
    if near:
        raise PartError(f"{key}.name is {part.name!r}; did you mean {near[0]!r}?")
    if not _HUB_NAME.fullmatch(part.name):
        raise PartError(
            f"{key}.name is {part.name!r}, which is no folder and no name of the hub (owner/model)"
        )


def _check_language(part: LanguageConfig, runtime: RuntimeConfig) -> None:
    if part.quantization != "none" and find_spec("bitsandbytes") is None:
        raise PartError(
            f"parts.language.quantization is {part.quantization!r} and bitsandbytes is not "
            "installed; run pip install -e '.[quantized]'"
        )
    each = min(_BYTES[part.precision], _BYTES_QUANTIZED[part.quantization])
    wanted, there = parameters_of(part.name) * each, _memory(runtime)
    if wanted > there:
        raise PartError(
            f"the weights of {part.name} alone take {wanted / 1e9:.1f} GB in {part.precision} "
            f"(quantization {part.quantization}), and {_place(runtime)} has {there / 1e9:.1f} GB; "
            "choose a smaller parts.language.name, quantization, or another runtime.device"
        )


def parameters_of(name: str) -> float:
    """How many parameters a model has at least: of a folder's files, or as a hub name says.

    ``facebook/opt-6.7b`` says 6.7e9. 0 where nothing is known.
    """
    folder = Path(name)
    if folder.is_dir():
        weights = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
        return sum(path.stat().st_size for path in weights) / 4  # at least: float32 is the largest
    said = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", name.lower())
    return float(said[1]) * {"b": 1e9, "m": 1e6}[said[2]] if said else 0.0


def _memory(runtime: RuntimeConfig) -> float:
    import psutil
    import torch

    if runtime.device.startswith("cuda") or (
        runtime.device == "auto" and torch.cuda.is_available()
    ):
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(psutil.virtual_memory().total + psutil.swap_memory().total)


def _place(runtime: RuntimeConfig) -> str:
    import torch

    on_gpu = runtime.device != "cpu" and torch.cuda.is_available()
    return "the GPU" if on_gpu else "this machine"
