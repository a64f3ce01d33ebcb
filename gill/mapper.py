"""f_w: from [IMG] states to the image generator's conditioning, and the paper's baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gill.initialization import ridge

MapperKind = Literal["gill", "linear", "mlp", "encoder"]
SMALL = 0.1  # what random weights are multiplied by beside ones that are fitted


@dataclass(frozen=True)
class MapperSize:
    """Sizes of a mapper; the defaults are the reference run's."""

    kind: MapperKind = "gill"
    hidden_dim: int = 512
    layers: int = 4
    heads: int = 4
    feedforward_dim: int = 2048


@contextmanager
def _attention(device: torch.device) -> Iterator[None]:
    # PyTorch's fused CPU kernel has a backward that is many times slower than plain matrix
    # products at a few dozen positions; on a GPU the choice is PyTorch's.
    if device.type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


class Mapper(nn.Module):
    """Interface of every mapper: ``(batch, r, llm_dim)`` to ``(batch, num_targets, target_dim)``.

    The input is the sum of the [IMG] hidden states and the [IMG] input embeddings.
    """

    def __init__(self, num_targets: int, target_dim: int) -> None:
        super().__init__()
        self.num_targets, self.target_dim = num_targets, target_dim

    def initialize_from(self, inputs: Tensor, targets: Tensor) -> None:
        """Start fitted to some examples in closed form, rather than random.

        [IMG] states vary most along a few directions that all captions share, and targets far from
        zero: a random mapper spends most of a short training on finding the two means and scales
        (docs/experiments.md). What is computed is unchanged, only where training begins.

        Args:
            inputs: ``(n, r, llm_dim)``. targets: ``(n, num_targets, target_dim)``.
        """
        raise NotImplementedError


class GillMapper(Mapper):
    """GILLMapper: learnt queries attend to the encoded [IMG] states (the paper's section 3.2).

    The parts are named as in the released checkpoint: ``fc``, ``tfm``, ``query_embs``, ``model``.
    """

    def __init__(self, llm_dim: int, num_targets: int, target_dim: int, size: MapperSize) -> None:
        super().__init__(num_targets, target_dim)
        self.fc = nn.Linear(llm_dim, size.hidden_dim)
        self.tfm = nn.Transformer(
            d_model=size.hidden_dim,
            nhead=size.heads,
            num_encoder_layers=size.layers,
            num_decoder_layers=size.layers,
            dim_feedforward=size.feedforward_dim,
            dropout=0.0,
            norm_first=True,
            batch_first=True,
        )
        self.query_embs = nn.Parameter(torch.randn(1, num_targets, size.hidden_dim))
        self.model = nn.Linear(size.hidden_dim, target_dim)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Mapper``."""
        out: Tensor = self.model(self.tfm.decoder.norm(self._decoded(x)))
        return out

    def _decoded(self, x: Tensor) -> Tensor:
        with _attention(x.device):
            memory = self.tfm.encoder(self.fc(x))
            # The queries are the same for every example until they first see the memory, so the
            # first self-attention is computed once, on a batch of one, and then broadcast.
            decoded = self.query_embs
            for layer in self.tfm.decoder.layers:
                seen = layer.norm1(decoded)
                decoded = decoded + layer.self_attn(seen, seen, seen, need_weights=False)[0]
                decoded = decoded + attend_to_few(
                    layer.multihead_attn, layer.norm2(decoded), memory
                )
                inner = layer.activation(layer.linear1(layer.norm3(decoded)))
                decoded = decoded + layer.linear2(inner)
        return decoded

    @torch.no_grad()
    def initialize_from(self, inputs: Tensor, targets: Tensor) -> None:
        """See ``Mapper``: a ridge regression from the mean encoded state to the mean target.

        ``fc`` gives whitened states, ``model`` reads principal components of the targets, of which
        the queries are the mean by position. The first cross-attention adds the regression to
        them, and the other branches begin small.
        """
        whiten(self.fc, inputs.flatten(0, 1))
        components = draw_from(self.model, targets.flatten(0, 1))
        mean = targets.mean(0, keepdim=True)
        self.query_embs.copy_(components(mean))
        for layer in (*self.tfm.encoder.layers, *self.tfm.decoder.layers):
            for branch in (layer.self_attn.out_proj, layer.linear2):
                branch.weight.mul_(SMALL)
        read = [self.tfm.encoder(self.fc(part)).mean(1) for part in inputs.split(256)]
        weight, bias = ridge(torch.cat(read), components((targets - mean).mean(1), centred=True))
        first = self.tfm.decoder.layers[0].multihead_attn
        dim = len(bias)
        first.in_proj_weight[2 * dim :] = torch.eye(dim, device=bias.device)
        first.in_proj_bias[2 * dim :] = 0
        first.out_proj.weight.copy_(weight)
        first.out_proj.bias.copy_(bias)
        for later in self.tfm.decoder.layers[1:]:
            later.multihead_attn.out_proj.weight.mul_(SMALL)
        # The last norm takes the scale away; its weight gives it back.
        scale = torch.cat([self._decoded(part).std(-1).flatten() for part in inputs.split(256)])
        self.tfm.decoder.norm.weight.fill_(float(scale.mean()))


def attend_to_few(attention: nn.MultiheadAttention, x: Tensor, memory: Tensor) -> Tensor:
    """What ``attention(x, memory, memory)`` gives, cheaply where the memory is shorter than ``x``.

    The query and output projections are products of a weight with every position of ``x``. Here
    they are applied to the keys and values instead: ``(x W_q) k' = x (k W_q')'`` and
    ``(p v) W_o = p (v W_o)``. With 8 [IMG] states and 77 queries of width 512 that takes 4.2M
    multiplications for each example in place of 43M.

    Args:
        x: ``(n or 1, positions, dim)``; one example is broadcast over the memories.
        memory: ``(n, few, dim)``.

    Returns:
        ``(n, positions, dim)``.
    """
    heads = attention.num_heads
    query, key, value = attention.in_proj_weight.chunk(3)
    query_bias, key_bias, value_bias = attention.in_proj_bias.chunk(3)
    keys = F.linear(memory, key, key_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
    values = F.linear(memory, value, value_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
    keys = keys * attention.head_dim**-0.5
    asked = keys @ query.unflatten(0, (heads, -1))  # (n, heads, few, dim)
    offset = (keys @ query_bias.unflatten(0, (heads, -1, 1))).flatten(1)  # (n, heads * few)
    scores = x @ asked.flatten(1, 2).transpose(1, 2) + offset[:, None]
    shares = scores.unflatten(-1, (heads, -1)).softmax(-1).flatten(2)
    told = values @ attention.out_proj.weight.T.unflatten(0, (heads, -1))  # (n, heads, few, dim)
    return shares @ told.flatten(1, 2) + attention.out_proj.bias


class LinearMapper(Mapper):
    """One linear map from all r states to all targets through a narrow middle.

    The paper's linear baseline maps to 77 x 768 values. A full matrix of that size is larger than
    the whole of GILLMapper, so the product of two matrices of rank ``hidden_dim`` stands for it,
    without anything non-linear between.
    """

    def __init__(
        self, llm_dim: int, num_img_tokens: int, num_targets: int, target_dim: int, size: MapperSize
    ) -> None:
        super().__init__(num_targets, target_dim)
        self.down = nn.Linear(num_img_tokens * llm_dim, size.hidden_dim)
        self.up = nn.Linear(size.hidden_dim, num_targets * target_dim)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Mapper``."""
        out: Tensor = self.up(self.down(x.flatten(1)))
        return out.view(len(x), self.num_targets, self.target_dim)

    @torch.no_grad()
    def initialize_from(self, inputs: Tensor, targets: Tensor) -> None:
        """See ``Mapper``: whitened states, and the mean target."""
        whiten(self.down, inputs.flatten(1))
        self.up.weight.mul_(SMALL)
        self.up.bias.copy_(targets.mean(0).flatten())


class MlpMapper(LinearMapper):
    """The linear mapper with a hidden layer and a non-linearity."""

    def __init__(
        self, llm_dim: int, num_img_tokens: int, num_targets: int, target_dim: int, size: MapperSize
    ) -> None:
        super().__init__(llm_dim, num_img_tokens, num_targets, target_dim, size)
        self.hidden = nn.Sequential(
            nn.GELU(), nn.Linear(size.hidden_dim, size.hidden_dim), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """See ``Mapper``."""
        out: Tensor = self.up(self.hidden(self.down(x.flatten(1))))
        return out.view(len(x), self.num_targets, self.target_dim)


class EncoderMapper(Mapper):
    """A Transformer encoder over the states and learnt target positions together."""

    def __init__(self, llm_dim: int, num_targets: int, target_dim: int, size: MapperSize) -> None:
        super().__init__(num_targets, target_dim)
        self.fc = nn.Linear(llm_dim, size.hidden_dim)
        layer = nn.TransformerEncoderLayer(
            size.hidden_dim,
            size.heads,
            size.feedforward_dim,
            dropout=0.0,
            norm_first=True,
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, size.layers, enable_nested_tensor=False)
        self.positions = nn.Parameter(torch.randn(1, num_targets, size.hidden_dim))
        self.model = nn.Linear(size.hidden_dim, target_dim)

    def forward(self, x: Tensor) -> Tensor:
        """See ``Mapper``."""
        joined = torch.cat([self.positions.expand(len(x), -1, -1), self.fc(x)], dim=1)
        with _attention(x.device):
            encoded = self.encoder(joined)
        out: Tensor = self.model(encoded[:, : self.num_targets])
        return out

    @torch.no_grad()
    def initialize_from(self, inputs: Tensor, targets: Tensor) -> None:
        """See ``Mapper``: whitened states, and the mean target by position."""
        whiten(self.fc, inputs.flatten(0, 1))
        components = draw_from(self.model, targets.flatten(0, 1))
        self.positions.copy_(components(targets.mean(0, keepdim=True)))
        for layer in self.encoder.layers:
            layer.linear2.weight.mul_(SMALL)


def principal(values: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(dim,)``, principal directions ``(dim, k)`` and deviations ``(k,)`` of ``(n, dim)``.

    ``k`` is ``most`` or ``dim``, whichever is smaller. Deviations below a thousandth of the largest
    are raised to that, since nothing but noise would be scaled up by them.
    """
    mean = values.mean(0)
    centred = values - mean
    covariance = (centred.T @ centred / len(values)).cpu().double()
    variances, directions = torch.linalg.eigh(covariance)
    deviations = variances.flip(0)[:most].clamp(min=0).sqrt()
    deviations = deviations.clamp(min=max(1e-3 * float(deviations[0]), 1e-12))
    return mean, directions.flip(1)[:, :most].to(values), deviations.to(values)


@torch.no_grad()
def whiten(layer: nn.Linear, values: Tensor) -> None:
    """Let a layer give the principal components of ``(n, dim)``, each with unit variance."""
    mean, directions, deviations = principal(values, layer.out_features)
    layer.weight.zero_()
    layer.weight[: len(deviations)] = (directions / deviations).T
    layer.bias.copy_(-layer.weight @ mean)


@torch.no_grad()
def draw_from(layer: nn.Linear, values: Tensor) -> Callable[..., Tensor]:
    """Let a layer make values like ``(n, dim)`` from principal components of unit variance.

    Returns:
        What gives the components of values, or of differences between them if ``centred``.
    """
    mean, directions, deviations = principal(values, layer.in_features)
    layer.weight.zero_()
    layer.weight[:, : len(deviations)] = directions * deviations
    layer.bias.copy_(mean)

    def components(given: Tensor, centred: bool = False) -> Tensor:
        found = (given if centred else given - mean) @ directions / deviations
        return F.pad(found, (0, layer.in_features - len(deviations)))

    return components


def new_mapper(
    llm_dim: int, num_img_tokens: int, num_targets: int, target_dim: int, size: MapperSize
) -> Mapper:
    """Make the mapper that ``size.kind`` names.

    Raises:
        ValueError: the kind is unknown.
    """
    if size.kind == "gill":
        return GillMapper(llm_dim, num_targets, target_dim, size)
    if size.kind == "encoder":
        return EncoderMapper(llm_dim, num_targets, target_dim, size)
    if size.kind == "linear":
        return LinearMapper(llm_dim, num_img_tokens, num_targets, target_dim, size)
    if size.kind == "mlp":
        return MlpMapper(llm_dim, num_img_tokens, num_targets, target_dim, size)
    raise ValueError(f"mapper kind {size.kind!r} is not one of {', '.join(get_args(MapperKind))}")
