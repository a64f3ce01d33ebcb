"""One training step of GILL: the reference's schedule against ours, on the same shapes.

    KMP_BLOCKTIME=0 OMP_WAIT_POLICY=passive python -m benchmarks.train_step --shape opt-125m

The baseline does what the released code does in a step: the vision encoder and the language model
three times (captioning, retrieval, generation), captions padded to 32 tokens, vocabulary logits at
every position, and an optimizer over the whole embedding matrix. Ours reads stored features, runs
the frozen prefix without autograd, one pass for l_p, l_r and l_g, logits only where there is a
label, and an optimizer over the trained parts. Weights are random: only time and memory count.

The multiplications and additions of both sides' matrix products are counted too, in a turn of its
own: their ratio is what fewer operations alone would give.

Both sides run in the same precision. Each runs in processes of its own, in turns; a turn's figure
is the mean over its steps (for ours a whole window of the loader, whose batches are sorted by
length; the baseline pads every batch alike), and the medians over the turns are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data.loader import ShuffledBatches
from gill.backbones.language import LanguageModel
from gill.backbones.testing.micro_models import tokenizer
from gill.batches import AdapterBatch
from gill.losses import LossWeights, generation_loss
from gill.mapper import GillMapper, MapperSize
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec
from gill.training import Optimization, Trainer, autocast

PADDED = 32
LONGEST = 24
BASELINE_STEPS = 2
WINDOW = ShuffledBatches.sort_window  # batches within which the loader sorts by length
NUM_IMG, NUM_VISUAL, RETRIEVAL_DIM = 8, 4, 256
NUM_TARGETS, TARGET_DIM = 77, 768


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model and a vision transformer."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    vision: tuple[int, int, int]  # layers, width, patch


SHAPES = {
    "tiny": Shape(2, 64, 4, 500, (1, 64, 32)),
    "opt-125m": Shape(12, 768, 12, 50272, (12, 768, 32)),
    "opt-6.7b": Shape(32, 4096, 32, 50272, (24, 1024, 14)),
}


def random_opt(shape: Shape, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """An OPT of a shape with random weights; none at all on the meta device."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        word_embed_proj_dim=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        ffn_dim=4 * shape.width,
        dropout=0.0,
        attn_implementation=attention,
    )
    with torch.device(device):
        return OPTForCausalLM(config).to(dtype)


def language_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """That OPT as the training step sees it."""
    attention = "eager" if device.type == "cpu" else "sdpa"
    return LanguageModel(random_opt(shape, device, dtype, attention), tokenizer(), "random OPT")


class Vision(nn.Module):
    """An open_clip vision transformer with random weights, giving its pooled feature."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from open_clip.transformer import VisionTransformer

        layers, self.width, patch = shape.vision
        self.tower = VisionTransformer(
            224, patch, self.width, layers, max(1, self.width // 64), 4.0, output_dim=self.width
        )
        self.tower.proj = None
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Pooled features."""
        out: Tensor = self.tower(pixels)
        return out


def caption_lengths(count: int, seed: int = 0) -> list[int]:
    """Lengths with CC3M's mean of about 11 tokens, from 4, cut at 24 (a log-normal draw)."""
    generator = torch.Generator().manual_seed(seed)
    sampled = torch.exp(torch.randn(count, generator=generator) * 0.4 + 2.32).round().int()
    return sampled.clamp(4, LONGEST).tolist()


def batches(batch: int, vocabulary: int, seed: int = 0) -> list[list[list[int]]]:
    """A window of batches of random token ids, sorted by length as the loader sorts them."""
    generator = torch.Generator().manual_seed(seed + 1)
    lengths = sorted(caption_lengths(WINDOW * batch, seed))
    rows = [torch.randint(4, vocabulary, (n,), generator=generator).tolist() for n in lengths]
    return [rows[i : i + batch] for i in range(0, len(rows), batch)]


class Reference(nn.Module):
    """What the released code trains: the whole resized embedding matrix and the maps."""

    def __init__(self, language: LanguageModel, vision_dim: int) -> None:
        super().__init__()
        old = language.embedding.weight
        new = torch.randn(NUM_IMG, language.dim, device=old.device, dtype=torch.float32) * 0.02
        self.embedding = nn.Parameter(torch.cat([old.float(), new]))
        self.w_cap = nn.Linear(vision_dim, NUM_VISUAL * language.dim)
        self.w_i2t = nn.Linear(vision_dim, RETRIEVAL_DIM)
        self.w_t2i = nn.Linear(language.dim, RETRIEVAL_DIM)
        self.scale = nn.Parameter(torch.tensor(2.659))
        self.mapper = GillMapper(language.dim, NUM_TARGETS, TARGET_DIM, MapperSize())


class ReferenceRun:
    """Updates ``Reference`` in the released code's way."""

    def __init__(self, language: LanguageModel, vision: Vision, parts: Reference) -> None:
        self.language, self.vision, self.parts = language, vision, parts
        self.optimizer = torch.optim.AdamW(
            parts.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01
        )

    def step(self, rows: list[list[int]], pixels: Tensor, targets: Tensor) -> None:
        """One update: captioning, retrieval and generation passes, each of the whole models."""
        language, parts, count = self.language, self.parts, len(rows)
        ids, mask, labels, img_at = self._padded(rows)
        here = torch.arange(count, device=ids.device)[:, None]
        self.optimizer.zero_grad(set_to_none=True)

        words = F.embedding(ids, parts.embedding)
        visual = parts.w_cap(self.vision(pixels)).view(count, NUM_VISUAL, -1)
        longer = F.pad(mask, (NUM_VISUAL, 0), value=1)
        hidden, _ = language.hidden(torch.cat([visual, words], 1), longer)
        loss = self._logits_loss(hidden, F.pad(labels, (NUM_VISUAL, 0), value=-100))

        hidden, _ = language.hidden(F.embedding(ids, parts.embedding), mask)
        text = F.normalize(parts.w_t2i(hidden[here, img_at].float())[:, 0], dim=-1)
        image = F.normalize(parts.w_i2t(self.vision(pixels)), dim=-1)
        scores = parts.scale.exp() * text @ image.T
        same = torch.arange(count, device=ids.device)
        loss = loss + (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2
        loss = loss + 0.5 * self._logits_loss(hidden, labels)

        self.vision(pixels)
        words = F.embedding(ids, parts.embedding)
        hidden, _ = language.hidden(words, mask)
        mapper = parts.mapper  # as PyTorch's Transformer computes it, without our short cuts
        memory = mapper.fc(hidden[here, img_at].float() + words[here, img_at])
        decoded = mapper.tfm(memory, mapper.query_embs.expand(count, -1, -1))
        conditioning = mapper.model(decoded)
        loss = loss + generation_loss(conditioning, targets)
        loss = loss + 0.5 * self._logits_loss(hidden, labels)

        loss.backward()
        if parts.embedding.grad is not None:
            parts.embedding.grad[: language.vocab_size] = 0
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        self.optimizer.step()

    def _logits_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = hidden.float() @ self.parts.embedding.T
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        vocab, device = self.language.vocab_size, self.language.device
        img = list(range(vocab, vocab + NUM_IMG))
        full = [[*row[: PADDED - NUM_IMG], *img] for row in rows]
        ids = torch.tensor([[*row, *[0] * (PADDED - len(row))] for row in full])
        lengths = torch.tensor([len(row) for row in full])[:, None]
        mask = (torch.arange(PADDED)[None] < lengths).long()
        labels = ids.masked_fill(mask == 0, -100)
        img_at = lengths - NUM_IMG + torch.arange(NUM_IMG)
        return ids.to(device), mask.to(device), labels.to(device), img_at.to(device)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's moments."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


def measure(
    side: str, shape: Shape, batch: int, precision: str, device: torch.device
) -> dict[str, float]:
    """Mean seconds of a step of one side, its peak memory and its optimizer's bytes."""
    dtype = getattr(torch, precision)
    torch.manual_seed(0)
    language = language_model(shape, device, dtype)
    vision_dim = shape.vision[1]
    targets = torch.randn(batch, NUM_TARGETS, TARGET_DIM, device=device)
    seconds: list[float] = []
    if side == "baseline":
        vision = Vision(shape).to(device, dtype)
        parts = Reference(language, vision_dim).to(device)
        pixels = torch.randn(batch, 3, 224, 224, device=device, dtype=dtype)
        run = ReferenceRun(language, vision, parts)
        window = batches(batch, shape.vocabulary)
        for rows in window[: BASELINE_STEPS + 1]:
            began = time.perf_counter()
            with autocast(device, precision):
                run.step(rows, pixels, targets)
            _synchronize(device)
            seconds.append(time.perf_counter() - began)
        return _result(seconds, optimizer_bytes(run.optimizer), device)
    spec = AdapterSpec(
        num_img_tokens=NUM_IMG,
        num_visual_tokens=NUM_VISUAL,
        retrieval_dim=RETRIEVAL_DIM,
        vision_dim=vision_dim,
        llm_dim=language.dim,
    )
    adapters = Adapters(spec, language).to(device)
    mapper = GillMapper(language.dim, NUM_TARGETS, TARGET_DIM, MapperSize()).to(device)
    model = GillModel(language, adapters)
    features = torch.randn(batch, vision_dim, device=device)
    settings = Optimization(steps=WINDOW + 1, precision=precision)
    states = torch.randn(batch, NUM_IMG, language.dim, device=device)
    img = adapters.img_tokens.weight.detach()

    def joint(rows: list[list[int]]) -> dict[str, Tensor]:
        return model.losses(AdapterBatch(rows, features, targets), LossWeights(), 0.0, mapper)

    def first(rows: list[list[int]]) -> dict[str, Tensor]:
        return model.losses(AdapterBatch(rows, features), LossWeights(), 0.0)

    def second(rows: list[list[int]]) -> dict[str, Tensor]:
        return {"loss": generation_loss(mapper(states, img), targets)}

    trained, loss = {
        "joint": (nn.ModuleList([adapters, mapper]), joint),
        "adapters": (nn.ModuleList([adapters]), first),
        "mapper": (nn.ModuleList([mapper]), second),
    }[side]
    trainer = Trainer(trained, loss, settings, after_step=adapters.img_tokens.rescale)
    began = time.perf_counter()
    window = batches(batch, shape.vocabulary)
    for _ in trainer.run([window[0], *window]):
        _synchronize(device)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return _result(seconds, optimizer_bytes(trainer.optimizer), device)


def operations(side: str, shape: Shape, batch: int, precision: str, device: torch.device) -> float:
    """Floating-point operations of the matrix products for one example, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        steps = measure(side, shape, batch, precision, device)["steps"]
    return counter.get_total_flops() / (steps * batch)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _result(seconds: list[float], moments: int, device: torch.device) -> dict[str, float]:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": statistics.mean(seconds[1:]),
        "steps": len(seconds),
        "optimizer_bytes": moments,
        "peak_bytes": peak,
    }


def main() -> None:
    """Measure each side in processes of their own, in turns, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="opt-125m")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=None)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = given.precision or ("float32" if device.type == "cpu" else "bfloat16")
    if given.side:
        what = (given.side, SHAPES[given.shape], given.batch, precision, device)
        print(json.dumps(operations(*what) if given.count else measure(*what)))
        return

    def apart(side: str, *more: str) -> Any:
        command = [sys.executable, "-m", "benchmarks.train_step", "--side", side, *more]
        command += ["--shape", given.shape, "--batch", str(given.batch), "--precision", precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    sides: dict[str, list[dict[str, float]]] = {
        s: [] for s in ("baseline", "joint", "adapters", "mapper")
    }
    counted = {side: apart(side, "--count") for side in sides}
    for turn in range(given.turns):
        for side, found in sides.items():
            found.append(apart(side))
            speed = given.batch / found[-1]["seconds"]
            print(f"turn {turn + 1}, {side}: {speed:.2f} examples/s", flush=True)
    rate = {
        side: given.batch / statistics.median(turn["seconds"] for turn in found)
        for side, found in sides.items()
    }
    # An example passes once through the adapters' step and once through the mapper's.
    staged = 1 / (1 / rate["adapters"] + 1 / rate["mapper"])
    peak = {side: max(turn["peak_bytes"] for turn in found) for side, found in sides.items()}
    line = {
        "shape": given.shape,
        "batch": given.batch,
        "precision": precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "baseline_examples_per_s": round(rate["baseline"], 3),
        "joint_examples_per_s": round(rate["joint"], 3),
        "staged_examples_per_s": round(staged, 3),
        "ratio_joint": round(rate["joint"] / rate["baseline"], 2),
        "ratio_staged": round(staged / rate["baseline"], 2),
        "adapters_examples_per_s": round(rate["adapters"], 3),
        "mapper_examples_per_s": round(rate["mapper"], 3),
        "operations_per_example": {side: round(count) for side, count in counted.items()},
        "operations_joint": round(counted["baseline"] / counted["joint"], 2),
        "operations_staged": round(
            counted["baseline"] / (counted["adapters"] + counted["mapper"]), 2
        ),
        "baseline_peak_bytes": peak["baseline"],
        "joint_peak_bytes": peak["joint"],
        "baseline_optimizer_bytes": sides["baseline"][0]["optimizer_bytes"],
        "joint_optimizer_bytes": sides["joint"][0]["optimizer_bytes"],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
