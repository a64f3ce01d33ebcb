"""Devices that a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.config.parts import RuntimeConfig

if TYPE_CHECKING:
    import torch


def device_of(runtime: RuntimeConfig) -> torch.device:
    """The device a recipe asks for, the first of several; ``auto`` is CUDA where there is one."""
    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(runtime.device.split(",")[0])


def on_own_device(runtime: RuntimeConfig, rank: int, size: int) -> RuntimeConfig:
    """The runtime of one of several workers: with GPUs each has one of its own.

    They are those that are named, in that order; ``auto`` and ``cuda`` are all from the first on.
    """
    import torch

    name, *others = names = runtime.device.split(",")
    if size == 1 or not (name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())):
        return runtime
    own = names[rank] if others else f"cuda:{rank}"
    return runtime.model_copy(update={"device": own})


def on_each_device(runtime: RuntimeConfig) -> list[RuntimeConfig]:
    """The runtime once for each device: every GPU for ``auto``, or ``cuda:0,cuda:2`` as given."""
    import torch

    names = runtime.device.split(",")
    if runtime.device == "auto" and torch.cuda.is_available():
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [runtime.model_copy(update={"device": name}) for name in names]
