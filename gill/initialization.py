"""Data-dependent starts: weights that training begins with, computed from some examples.

What is computed later is unchanged, only where training begins. A frozen language model is thrown
off by random vectors, and a random mapper spends most of a short training on finding the means and
scales of its inputs and targets; docs/experiments.md has the figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.captioning import CaptioningMap
from gill.mapper import EncoderMapper, GillMapper, LinearMapper, Mapper, mapper_input

SMALL = 0.1  # what random weights are multiplied by beside computed ones
_COMMON = 0.05  # weight of a token that every caption has
_BATCH = 256


def ridge(inputs: Tensor, targets: Tensor, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weight ``(out, in)`` and bias ``(out,)`` of the linear map from ``inputs`` to ``targets``.

    Args:
        inputs: ``(n, in)``. targets: ``(n, out)``.
        penalty: on the squared weights, relative to the mean variance of the inputs.
    """
    middle, centre = inputs.mean(0), targets.mean(0)
    x = inputs - middle
    gram = x.T @ x
    gram.diagonal().add_(penalty * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ (targets - centre))
    return weight.T, centre - middle @ weight


@torch.no_grad()
def start_captioning(
    captioning: CaptioningMap,
    embeddings: Tensor,
    slot: int = 0,
    words: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Let W_cap start as a prompt that each image changes a little.

    The biases become the embeddings, and the random weights a tenth of what they were: with random
    biases training begins at a loss of 7 instead of 6 and learns several times slower.

    Args:
        embeddings: ``(n, llm_dim)``; of fewer than the visual tokens the last is repeated.
        slot: the visual token that starts as the words of the image instead.
        words: weight ``(llm_dim, vision_dim)`` and bias ``(llm_dim,)`` of that token.
    """
    rows = embeddings[: captioning.num_visual_tokens]
    missing = captioning.num_visual_tokens - len(rows)
    rows = torch.cat([rows, rows[-1:].expand(missing, -1)])
    linear = captioning.linear
    linear.bias.copy_(rows.flatten())
    linear.weight.mul_(SMALL)
    if words is not None:
        own = slice(slot * captioning.llm_dim, (slot + 1) * captioning.llm_dim)
        linear.weight[own], linear.bias[own] = words


def words_of_images(
    features: Tensor, captions: Sequence[Sequence[int]], embeddings: Tensor
) -> tuple[Tensor, Tensor]:
    """Ridge regression from pooled features to what their captions' tokens mean on average.

    A caption's vector is the mean of its tokens' embeddings, each weighted by the logarithm of its
    rarity. The regression falls short of their spread, so it is stretched back to it.

    Args:
        features: ``(n, vision_dim)``. captions: ``n`` lists of token ids, none of them empty.
        embeddings: ``(vocab_size, llm_dim)``, the language model's input embeddings.

    Returns:
        Weight ``(llm_dim, vision_dim)`` and bias ``(llm_dim,)``.
    """
    seen = Counter(token for ids in captions for token in set(ids))
    rarity = {token: math.log(len(captions) / count) + _COMMON for token, count in seen.items()}
    vectors = []
    for ids in captions:
        weights = torch.tensor([rarity[token] for token in ids], device=embeddings.device)
        rows = embeddings[torch.tensor(ids, device=embeddings.device)].float()
        vectors.append(weights @ rows / weights.sum())
    target = torch.stack(vectors).to(features.device)
    weight, _ = ridge(features, target)
    middle, centre = features.mean(0), target.mean(0)
    reached = ((features - middle) @ weight.T).norm().clamp(min=1e-6)
    weight = weight * ((target - centre).norm() / reached)
    return weight, centre - weight @ middle


@torch.no_grad()
def start_mapper(mapper: Mapper, states: Tensor, img_embeddings: Tensor, targets: Tensor) -> None:
    """Initialize a mapper from some examples in closed form, rather than at random.

    [IMG] states vary most along a few directions that all captions share, and targets are far from
    zero: each kind starts with whitened states and the mean target, GILLMapper with a regression.

    Args:
        states: ``(n, r, llm_dim)``. img_embeddings: E_img, ``(r, llm_dim)``.
        targets: ``(n, num_targets, target_dim)``.

    Raises:
        TypeError: there is no such start for this kind of mapper.
    """
    inputs = mapper_input(states, img_embeddings)
    match mapper:
        case GillMapper():
            _start_gill(mapper, inputs, targets)
        case EncoderMapper():
            _start_encoder(mapper, inputs, targets)
        case LinearMapper():  # and MlpMapper, which is one
            whiten(mapper.down, inputs.flatten(1))
            mapper.up.weight.mul_(SMALL)
            mapper.up.bias.copy_(targets.mean(0).flatten())
        case _:
            raise TypeError(
                f"{type(mapper).__name__} has no data-dependent initialization; "
                "use mapper.initialization=random"
            )


def _start_gill(mapper: GillMapper, inputs: Tensor, targets: Tensor) -> None:
    """A ridge regression from the mean encoded state to the mean target.

    ``fc`` gives whitened states, ``model`` reads principal components of the targets, of which the
    queries are the mean by position. The first cross-attention adds the regression to them, and the
    other branches begin small.
    """
    whiten(mapper.fc, inputs.flatten(0, 1))
    components = unwhiten(mapper.model, targets.flatten(0, 1))
    mean = targets.mean(0, keepdim=True)
    mapper.query_embs.copy_(components(mean))
    encoder, decoder = mapper.tfm.encoder, mapper.tfm.decoder
    for layer in (*encoder.layers, *decoder.layers):
        for branch in (layer.self_attn.out_proj, layer.linear2):
            branch.weight.mul_(SMALL)
    read = [encoder(mapper.fc(part)).mean(1) for part in inputs.split(_BATCH)]
    weight, bias = ridge(torch.cat(read), components((targets - mean).mean(1), centred=True))
    first = decoder.layers[0].multihead_attn
    dim = len(bias)
    first.in_proj_weight[2 * dim :] = torch.eye(dim, device=bias.device)
    first.in_proj_bias[2 * dim :] = 0
    first.out_proj.weight.copy_(weight)
    first.out_proj.bias.copy_(bias)
    for later in decoder.layers[1:]:
        later.multihead_attn.out_proj.weight.mul_(SMALL)
    # The last norm takes the scale away; its weight gives it back.
    scale = torch.cat([mapper.decoded(part).std(-1).flatten() for part in inputs.split(_BATCH)])
    decoder.norm.weight.fill_(float(scale.mean()))


def _start_encoder(mapper: EncoderMapper, inputs: Tensor, targets: Tensor) -> None:
    """Whitened states, and the mean target by position."""
    whiten(mapper.fc, inputs.flatten(0, 1))
    components = unwhiten(mapper.model, targets.flatten(0, 1))
    mapper.positions.copy_(components(targets.mean(0, keepdim=True)))
    for layer in mapper.encoder.layers:
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
def unwhiten(layer: nn.Linear, values: Tensor) -> Callable[..., Tensor]:
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
