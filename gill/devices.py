"""Tensors on their way to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what that device still computes.

    A plain copy to a GPU waits for all work before it, and the next work is then prepared while the
    GPU idles. Pinned memory is copied beside the work.
    """
    if values.device.type != "cpu" or device.type == "cpu":
        return values.to(device)
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
