"""The standard networks of FID and LPIPS, with weights that the user gives."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Features = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]


def weights_file(name: str) -> Path:
    """A path, or a file on the Hugging Face hub as ``owner/repository/file``.

    Raises:
        ValueError: it is neither.
    """
    if Path(name).is_file():
        return Path(name)
    hub = re.fullmatch(r"([\w.-]+/[\w.-]+)/([\w./-]+)", name)
    if hub is None:
        raise ValueError(
            f"there is no file {name!r} and it is no owner/repository/file of the hub; give the "
            "path of the weights"
        )
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(hub[1], hub[2]))


def load_inception(weights: str, device: torch.device) -> Features:
    """Features ``(n, 2048)`` of images ``(n, 3, h, w)`` in [0, 1]: the network of FID.

    Args:
        weights: the TensorFlow Inception of 2015 in torch-fidelity's or pytorch-fid's layout.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The library unpickles what it is given; it is given tensors that were read safely.
    held = io.BytesIO()
    torch.save(_tensors(weights_file(weights)), held)
    held.seek(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], held).to(device)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return torch.as_tensor(network(pixels.to(device))[0]).float().cpu()

    return features


def load_lpips(weights: str, device: torch.device) -> Distance:
    """LPIPS ``(n,)`` (AlexNet, version 0.1) of images ``(n, 3, h, w)`` in [0, 1].

    Args:
        weights: torchvision's AlexNet with ImageNet weights. The linear weights come from the
            ``lpips`` package.
    """
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torchvision, at the package's old call
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    given = _tensors(weights_file(weights))
    own = network.net.state_dict()
    names = {name: f"features.{name.split('.', 1)[1]}" for name in own}  # slice2.3.bias
    missing = sorted(set(names.values()) - set(given))
    if missing:
        raise ValueError(f"{weights} is not torchvision's AlexNet: it lacks {missing[:3]}")
    network.net.load_state_dict({name: given[theirs] for name, theirs in names.items()})
    network = network.to(device).eval()

    @torch.no_grad()
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return torch.as_tensor(network(a.to(device), b.to(device), normalize=True)).flatten().cpu()

    return distance


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return found
