"""Bytes by part of a training step, counted on shapes alone: no weights and no device are needed.

    python -m benchmarks.memory --shape opt-6.7b --batch 200 --tokens 11

Activations are what autograd keeps for the gradient: real modules run on the ``meta`` device and
every kept tensor is counted once, those of the frozen weights left out. Memory that lives only
inside an operation is not counted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.train_step import (
    NUM_IMG,
    NUM_TARGETS,
    NUM_VISUAL,
    RETRIEVAL_DIM,
    SHAPES,
    TARGET_DIM,
    Shape,
    random_opt,
)
from gill.captioning import CaptioningMap
from gill.mapper import GillMapper, MapperSize
from gill.retrieval import RetrievalMaps


def language_model(shape: Shape) -> nn.Module:
    """An OPT of a shape on the meta device, in bfloat16 and frozen."""
    model: nn.Module = random_opt(shape, torch.device("meta"), torch.bfloat16, "sdpa")
    return model.requires_grad_(False).eval()


def kept_bytes(forward: Callable[[], Tensor], parameters: nn.Module) -> int:
    """Bytes that autograd keeps after a forward pass, beside the parameters."""
    kept: dict[int, Tensor] = {}
    known = {id(p) for p in parameters.parameters()}

    def pack(x: Tensor) -> Tensor:
        base = x if x._base is None else x._base
        if id(base) not in known:
            kept[id(base)] = base
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = forward()
    total = sum(x.numel() * x.element_size() for x in kept.values())
    del output
    return total


def count(shape: Shape, batch: int, tokens: int) -> dict[str, int]:
    """Bytes by part for captions of ``tokens`` tokens."""
    llm: Any = language_model(shape)
    decoder = llm.get_decoder()
    vision_dim = shape.vision[1]
    with torch.device("meta"):
        maps: dict[str, nn.Module] = {
            "captioning_map": CaptioningMap(vision_dim, NUM_VISUAL, shape.width),
            "retrieval_maps": RetrievalMaps(shape.width, vision_dim, RETRIEVAL_DIM),
            "mapper": GillMapper(shape.width, NUM_TARGETS, TARGET_DIM, MapperSize()),
        }
    trained = {name: sum(p.numel() for p in part.parameters()) for name, part in maps.items()}
    trained["img_tokens"] = NUM_IMG * shape.width

    def states(length: int, gradient: bool = True) -> Tensor:
        size = (batch, length, shape.width)
        return torch.empty(size, dtype=torch.bfloat16, device="meta", requires_grad=gradient)

    def img_pass() -> Tensor:
        with torch.no_grad():
            cache = decoder(inputs_embeds=states(tokens, False), use_cache=True).past_key_values
        mask = torch.ones(batch, tokens + NUM_IMG, device="meta", dtype=torch.long)
        return decoder(
            inputs_embeds=states(NUM_IMG), attention_mask=mask, past_key_values=cache
        ).last_hidden_state

    def mapping() -> Tensor:
        x = torch.empty(batch, NUM_IMG, shape.width, device="meta")
        mapped: Tensor = maps["mapper"](x, x[0])
        return mapped

    length = NUM_VISUAL + tokens + 1
    cache = 2 * shape.layers * batch * tokens * shape.width * 2
    return {
        "language_model": sum(p.numel() * 2 for p in llm.parameters()),
        **{f"trained_{name}": 4 * n for name, n in trained.items()},
        "trained_gradients_and_moments": 12 * sum(trained.values()),
        "captioning_activations": kept_bytes(
            lambda: decoder(inputs_embeds=states(length), use_cache=False).last_hidden_state, llm
        ),
        "captioning_activations_recomputed": shape.layers * batch * length * shape.width * 2,
        "img_pass_activations": kept_bytes(img_pass, llm),
        "img_pass_prefix_cache": cache,
        "mapper_activations": kept_bytes(mapping, maps["mapper"]),
        "reference_moments_of_all_embeddings": 12 * shape.vocabulary * shape.width,
    }


def main() -> None:
    """Print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="opt-6.7b")
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=11, help="of a caption, its BOS included")
    given = parser.parse_args()
    found = count(SHAPES[given.shape], given.batch, given.tokens)
    for name, size in found.items():
        print(f"{name:38} {size / 1e9:9.3f} GB")
    print(json.dumps({"shape": given.shape, "batch": given.batch, "tokens": given.tokens, **found}))


if __name__ == "__main__":
    main()
