"""What can be known to be wrong with devices and frozen parts before any work is done."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from tasks.config.parts import LanguageConfig, PartConfig, PartsConfig, RuntimeConfig, VisionConfig
from tasks.parts.devices import device_of

OWN = ("embedded", "tiny")
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
    if on_gpus and runtime.workers > 1:
        chosen = ":" in runtime.device
        gpus = len(runtime.device.split(",")) if chosen else count
        if runtime.workers > gpus:
            raise DeviceError(
                f"runtime.workers is {runtime.workers}; each has a GPU of its own, and "
                f"{f'runtime.device names {gpus}' if chosen else f'there are {gpus}'}"
            )


def check_parts(parts: PartsConfig, runtime: RuntimeConfig, wanted: Collection[str]) -> None:
    """See that the frozen parts that are wanted are what their names say.

    Args:
        wanted: language, vision, generator.

    Raises:
        PartError: a name leads nowhere, an open_clip name and its tag disagree, or what is named
            does not fit this machine.
    """
    for name in wanted:
        part: PartConfig = getattr(parts, name)
        if part.name in OWN:
            continue
        if isinstance(part, VisionConfig):
            check_vision(part, f"parts.{name}")
        else:
            _check_name(part, f"parts.{name}")
        if isinstance(part, LanguageConfig):
            _check_language(part, runtime)


def check_vision(part: VisionConfig, key: str) -> None:
    """See that open_clip has the architecture and the weights, and that they fit each other.

    Args:
        key: the setting, or the section of settings, that names it.

    Raises:
        PartError: it has not, or they do not.
    """
    from gill.backbones.vision_names import check_activation, check_named, check_size

    _check_own(part.name, key)
    try:
        check_named(part.name, part.pretrained)
        if ":" not in part.name:
            check_size(part.name, part.pretrained)
            check_activation(part.name, part.pretrained)
    except (ValueError, OSError) as error:
        said = str(error)
        raise PartError(said if said.startswith(key) else f"{key}: {said}") from error


def _check_name(part: PartConfig, key: str) -> None:
    from gill.backbones.whole import located

    _check_own(part.name, key)
    try:
        folder = Path(located(part.name, f"{key}.name"))
    except (ValueError, OSError) as error:
        raise PartError(str(error)) from error
    if folder.is_dir() and not any(folder.glob("*.json")):
        raise PartError(f"{key}.name is {part.name!r}, a folder without the files of a model")


def _check_own(name: str, key: str) -> None:
    """See that a name is no slip of one of the project's own."""
    near = get_close_matches(name, OWN, n=1, cutoff=0.75)
    if near and not Path(name).is_dir():
        raise PartError(f"{key} is {name!r}; did you mean {near[0]!r}?")


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


def host_memory() -> float:
    """Bytes of memory that this machine has, with what it can swap out."""
    import psutil

    return float(psutil.virtual_memory().total + psutil.swap_memory().total)


def _memory(runtime: RuntimeConfig) -> float:
    import torch

    if runtime.device.startswith("cuda") or (
        runtime.device == "auto" and torch.cuda.is_available()
    ):
        return float(torch.cuda.get_device_properties(device_of(runtime)).total_memory)
    return host_memory()


def _place(runtime: RuntimeConfig) -> str:
    import torch

    on_gpu = runtime.device != "cpu" and torch.cuda.is_available()
    return "the GPU" if on_gpu else "this machine"
