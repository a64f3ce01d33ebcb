"""f_w: from [IMG] states to the image generator's conditioning, and the paper's baselines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from typing_extensions import override

from gill.settings import REFERENCE, WIDEST, ComponentSettings, setting

MapperKind = Literal["gill", "linear", "mlp", "encoder"]


class MapperSize(ComponentSettings):
    """Kind and sizes of a mapper."""

    kind: MapperKind = setting(
        "gill", "of the mapper that images are generated with", source=REFERENCE
    )
    hidden_dim: int = setting(
        512,
        "width between the two maps at its ends, a multiple of heads",
        unit="dimensions",
        source=REFERENCE,
        ge=1,
        le=WIDEST,
    )
    layers: int = setting(
        4,
        "of the encoder, and as many of the decoder",
        unit="layers",
        source=REFERENCE,
        ge=1,
        le=256,
    )
    heads: int = setting(4, "of each attention", unit="heads", source=REFERENCE, ge=1, le=1024)
    feedforward_dim: int = setting(
        2048,
        "width inside the feed-forward layers",
        unit="dimensions",
        source=REFERENCE,
        ge=1,
        le=WIDEST,
    )

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden_dim % self.heads:
            raise ValueError(
                f"heads is {self.heads}; it must divide hidden_dim, which is {self.hidden_dim}"
            )
        return self


@contextmanager
def _attention(device: torch.device) -> Iterator[None]:
    # PyTorch's fused CPU kernel has a backward that is many times slower than plain matrix
    # products at a few dozen positions; on a GPU the choice is PyTorch's.
    if device.type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def mapper_input(states: Tensor, img_embeddings: Tensor) -> Tensor:
    """What every mapper reads: [IMG] hidden states plus the [IMG] input embeddings, in float32.

    Args:
        states: ``(batch, r, llm_dim)``. img_embeddings: E_img, ``(r, llm_dim)``.
    """
    return states.float() + img_embeddings.to(states.device)


class Mapper(nn.Module):
    """Interface of every mapper; ``transform`` is what the kinds differ in."""

    def __init__(self, num_targets: int, target_dim: int) -> None:
        super().__init__()
        self.num_targets, self.target_dim = num_targets, target_dim

    def forward(self, states: Tensor, img_embeddings: Tensor) -> Tensor:
        """Conditioning ``(batch, num_targets, target_dim)`` of [IMG] states.

        Args:
            states: ``(batch, r, llm_dim)``. img_embeddings: E_img, ``(r, llm_dim)``.
        """
        return self.transform(mapper_input(states, img_embeddings))

    def transform(self, x: Tensor) -> Tensor:
        """From ``mapper_input`` ``(batch, r, llm_dim)`` to the conditioning."""
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

    @override
    def transform(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(self.tfm.decoder.norm(self.decoded(x)))
        return out

    def decoded(self, x: Tensor) -> Tensor:
        """The queries after the last decoder layer, before its norm: ``(batch, n, hidden_dim)``."""
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

    @override
    def transform(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.down(x.flatten(1)))
        return out.view(len(x), self.num_targets, self.target_dim)


class MlpMapper(LinearMapper):
    """The linear mapper with a hidden layer and a non-linearity."""

    def __init__(
        self, llm_dim: int, num_img_tokens: int, num_targets: int, target_dim: int, size: MapperSize
    ) -> None:
        super().__init__(llm_dim, num_img_tokens, num_targets, target_dim, size)
        self.hidden = nn.Sequential(
            nn.GELU(), nn.Linear(size.hidden_dim, size.hidden_dim), nn.GELU()
        )

    @override
    def transform(self, x: Tensor) -> Tensor:
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

    @override
    def transform(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.positions.expand(len(x), -1, -1), self.fc(x)], dim=1)
        with _attention(x.device):
            encoded = self.encoder(joined)
        out: Tensor = self.model(encoded[:, : self.num_targets])
        return out


def new_mapper(
    llm_dim: int, num_img_tokens: int, num_targets: int, target_dim: int, size: MapperSize
) -> Mapper:
    """Make the mapper that ``size.kind`` names."""
    if size.kind == "gill":
        return GillMapper(llm_dim, num_targets, target_dim, size)
    if size.kind == "encoder":
        return EncoderMapper(llm_dim, num_targets, target_dim, size)
    if size.kind == "linear":
        return LinearMapper(llm_dim, num_img_tokens, num_targets, target_dim, size)
    return MlpMapper(llm_dim, num_img_tokens, num_targets, target_dim, size)
