"""Inference: tokens with a key-value cache against none, images, and search in a large index.

    KMP_BLOCKTIME=0 OMP_WAIT_POLICY=passive python -m benchmarks.generate

- **tokens**: 32 new tokens after 128 of context. The baseline is the released code's way: the whole
  sequence again for each token, without a cache, with logits and hidden states at every position.
  Both sides take turns; ``same_tokens`` is how often they agree (in bfloat16 a tie may fall apart).
- **images**: mapper and sampler with the recipe's steps, one image and a batch.
- **search**: the ten nearest of 3.3M x 256 unit vectors, one query at a time, against comparing all
  of them in float32. ``random`` vectors have no neighbours that stand out; ``clustered`` ones lie
  around 10,000 centres. Memory is what the process grew by: keys, half-precision vectors, codes.

The embedded parts have their real weights, the trained parts random ones: only time, memory and
agreement count.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from flows.names import RecipeName
from flows.recipes import RECIPES
from gill.backbones.language import LanguageModel
from gill.inference.decoding import decode
from gill.inference.index import Index
from gill.inference.settings import DecodingSettings
from gill.mapper import MapperSize, new_mapper
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec
from tasks.config.parts import RuntimeConfig
from tasks.parts.loading import load_generator, load_language

CHUNK = 100_000
COUNT = 10


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call, to the end of what it started on a GPU."""
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.no_grad()
def uncached(language: LanguageModel, embeddings: Tensor, new: int) -> list[list[int]]:
    """Greedy tokens of each row the released way; end-of-text is not chosen."""
    steps: list[Tensor] = []
    for _ in range(new):
        logits = language.model(
            inputs_embeds=embeddings, use_cache=False, output_hidden_states=True
        ).logits[:, -1]
        logits[:, language.eos_id] = -math.inf
        steps.append(logits.argmax(-1))
        embeddings = torch.cat([embeddings, language.embed(steps[-1])[:, None]], dim=1)
    return torch.stack(steps, dim=1).tolist()


def tokens(language: LanguageModel, context: int, new: int, repeats: int) -> dict[str, float]:
    """Tokens a second of both ways, one prompt at a time and eight together."""
    spec = AdapterSpec(vision_dim=16, llm_dim=language.dim)
    model = GillModel(language, Adapters(spec, language).to(language.device))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, language.vocab_size, (8, context), generator=generator)
    embeddings = language.embed(ids.to(language.device))
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=language.device)
    config = DecodingSettings(max_new_tokens=new, min_new_tokens=new, max_images=0)

    def cached(rows: int) -> list[list[int]]:
        found = decode(model, embeddings[:rows], mask[:rows], config, [0] * rows)
        return [answer.tokens for answer in found]

    def plain(rows: int) -> list[list[int]]:
        return uncached(language, embeddings[:rows], new)

    line: dict[str, float] = {}
    for rows in (1, 8):
        ours, theirs = torch.tensor(cached(rows)), torch.tensor(plain(rows))
        times: dict[str, list[float]] = {"cached": [], "uncached": []}
        for _ in range(repeats):
            times["cached"].append(seconds(partial(cached, rows)))
            times["uncached"].append(seconds(partial(plain, rows)))
        median = {name: statistics.median(found) for name, found in times.items()}
        for name, value in median.items():
            line[f"{name}_tokens_per_s_batch_{rows}"] = round(rows * new / value, 2)
        line[f"cache_ratio_batch_{rows}"] = round(median["uncached"] / median["cached"], 2)
        line[f"same_tokens_batch_{rows}"] = round(float((ours == theirs).float().mean()), 3)
    return line


@torch.no_grad()
def images(recipe: RecipeName, batch: int, repeats: int) -> dict[str, float]:
    """Images a second from [IMG] states on, one alone and a batch."""
    config = RECIPES[recipe]()
    generator = load_generator(config.parts.generator, RuntimeConfig())
    made, parts = config.mapper, config.parts.generator
    size = MapperSize.of(made)
    r, width = config.adapters.num_img_tokens, 576
    mapper = new_mapper(width, r, generator.num_tokens, generator.dim, size)
    mapper = mapper.to(generator.device).eval()
    states = torch.randn(batch, r, width, device=generator.device)
    img = torch.randn(r, width, device=generator.device)

    def sample(count: int) -> Tensor:
        return generator.generate(
            mapper(states[:count], img), range(count), parts.guidance_scale, parts.steps
        )

    sample(1)
    found: dict[str, float] = {"sampler_steps": parts.steps}
    for count in (1, batch):
        median = statistics.median(seconds(partial(sample, count)) for _ in range(repeats))
        found[f"images_per_s_batch_{count}"] = round(count / median, 2)
    return found


def unit_vectors(kind: str, count: int, width: int, seed: int) -> Tensor:
    """Half-precision unit vectors ``(count, width)``, made in chunks."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10_000, width, generator=torch.Generator().manual_seed(99))
    vectors = torch.empty(count, width, dtype=torch.float16)
    for start in range(0, count, CHUNK):
        part = torch.randn(min(CHUNK, count - start), width, generator=generator)
        if kind == "clustered":
            part += centres[torch.randint(0, len(centres), (len(part),), generator=generator)]
        vectors[start : start + len(part)] = F.normalize(part, dim=-1)
    return vectors


def search(kind: str, count: int, width: int, queries: int) -> dict[str, float]:
    """Latency, agreement with exact search, and memory of an index."""
    process = psutil.Process()
    asked = unit_vectors(kind, queries, width, 1).float()
    before = process.memory_info().rss
    vectors = unit_vectors(kind, count, width, 0)
    index = Index([f"{i:09d}" for i in range(count)], vectors, exact_up_to=0)
    built = seconds(lambda: index.nearest(asked[:1], COUNT))
    del vectors  # faiss holds them now
    grown = process.memory_info().rss - before
    ours, exact, found = [], [], 0
    # What comparing all of them would keep: twice the memory.
    full = unit_vectors(kind, count, width, 0).float()

    def compare_all(query: Tensor) -> set[str]:
        return {index.keys[i] for i in (full @ query).topk(COUNT).indices.tolist()}

    for query in asked:
        began = time.perf_counter()
        (matches,) = index.nearest(query[None], COUNT)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        truth = compare_all(query)
        exact.append(time.perf_counter() - began)
        found += len(truth & {match.key for match in matches})
    codes: Any = faiss.downcast_index(index._codes.base_index)
    return {
        f"{kind}_search_p50_ms": round(1000 * statistics.median(ours), 1),
        f"{kind}_search_p95_ms": round(1000 * sorted(ours)[int(0.95 * len(ours))], 1),
        f"{kind}_search_exact_p50_ms": round(1000 * statistics.median(exact), 1),
        f"{kind}_search_recall_at_10": round(found / (COUNT * queries), 4),
        f"{kind}_search_build_s": round(built, 1),
        f"{kind}_search_bytes": grown,
        f"{kind}_search_codes_bytes": codes.code_size * count,
    }


def main() -> None:
    """Measure what is asked for and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", nargs="+", default=["tokens", "images", "search"])
    parser.add_argument("--recipe", choices=RECIPES, default="embedded")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="images sampled together")
    parser.add_argument("--vectors", type=int, default=3_300_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100)
    given = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    line: dict[str, object] = {"recipe": given.recipe, "device": device}
    if "tokens" in given.what:
        language = load_language(RECIPES[given.recipe]().parts.language, RuntimeConfig())
        line |= tokens(language, given.context, given.new, given.repeats)
        print(line, flush=True)
    if "images" in given.what:
        line |= images(given.recipe, given.batch, given.repeats)
        print(line, flush=True)
    if "search" in given.what:
        line["vectors"], line["width"] = given.vectors, given.width
        for kind in ("random", "clustered"):
            line |= search(kind, given.vectors, given.width, given.queries)
            print(line, flush=True)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
