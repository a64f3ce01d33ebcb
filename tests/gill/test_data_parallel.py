"""Batches in parts, on one worker and on several, add up to the whole batch."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from gill.backbones.testing import micro_models
from gill.batches import AdapterBatch
from gill.data_parallel import WorkerGroup, cut, own_rows
from gill.losses import LossWeights, contrastive_loss, contrastive_loss_of_part
from gill.mapper import MapperSize, new_mapper
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec
from gill.training import Optimization, Trainer

SIZES = (8, 5, 1, 7)  # of the batches: uneven, and fewer examples than workers
WORDS = ["a", "cat,", "the", "flag", "of", "an", "old", "red", "truck,", "3d"]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_pieces_cover_every_row_once_and_keep_pairs(count, pieces):
    found = cut(count, pieces)
    assert len(found) == pieces
    assert [i for rows in found for i in range(count)[rows]] == list(range(count))
    assert all(rows.start % 2 == 0 or rows.start == count for rows in found)
    of_workers = [
        rows for r in range(pieces) for rows in own_rows(count, WorkerGroup(r, pieces), 1)
    ]
    assert of_workers == found


def test_contrastive_parts_by_plain_autograd():
    torch.manual_seed(0)
    text = torch.randn(5, 3, requires_grad=True)
    image = torch.randn(5, 3, requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    plain = contrastive_loss(text, image, scale)
    expected = torch.autograd.grad(plain, (text, image, scale))
    total = [torch.zeros_like(g) for g in expected]
    for rows in (slice(0, 2), slice(2, 2), slice(2, 5)):
        share = (rows.stop - rows.start) / 5
        part = contrastive_loss_of_part(text[rows], text.detach(), image, scale, rows.start, share)
        assert part.item() == pytest.approx(plain.item(), abs=1e-6)
        if share:
            found = torch.autograd.grad(part * share, (text, image, scale))
            total = [a + b for a, b in zip(total, found, strict=True)]
    for a, b in zip(total, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def train(accumulate=1, packing=0.5):
    """Train tiny adapters and a mapper together; returns weights, gradients and losses."""
    language = micro_models.language_model()
    torch.manual_seed(2)
    adapters = Adapters(
        AdapterSpec(
            num_img_tokens=2,
            num_visual_tokens=2,
            retrieval_dim=8,
            vision_dim=6,
            llm_dim=language.dim,
        ),
        language,
    )
    # No attention here: the true gradient of its key bias is 0, and Adam makes steps of the noise.
    size = MapperSize(kind="mlp", hidden_dim=16)
    mapper = new_mapper(language.dim, 2, 4, 5, size)
    model = GillModel(language, adapters, max_caption_tokens=40)
    config = Optimization(steps=len(SIZES), learning_rate=1e-2, accumulate=accumulate)
    gradients = {}

    def batches():
        for number, count in enumerate(SIZES):
            generator = torch.Generator().manual_seed(number)
            texts = [
                " ".join(WORDS[(number + i) % 9 : (number + i) % 9 + i + 1]) for i in range(count)
            ]
            yield AdapterBatch(
                model.tokenize(texts),
                torch.randn(count, 6, generator=generator),
                torch.randn(count, 4, 5, generator=generator),
            )

    def after_step():
        if not gradients:
            gradients.update({f"grad.{n}": p.grad.clone() for n, p in both.named_parameters()})
        adapters.img_tokens.rescale()

    both = nn.ModuleDict({"adapters": adapters, "mapper": mapper})
    trainer = Trainer(
        both,
        lambda batch: model.losses(batch, LossWeights(), packing, mapper),
        config,
        after_step,
        split=lambda batch: model.split(batch, packing, accumulate),
    )
    reports = list(trainer.run(batches()))
    losses = {f"loss.{r.step}.{name}": v.clone() for r in reports for name, v in r.losses.items()}
    weights = {name: p.detach().clone() for name, p in both.named_parameters()}
    assert [r.examples for r in reports] == list(SIZES)
    return {**weights, **gradients, **losses}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.fixture(scope="module")
def whole():
    return train()


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_equals_the_large_batch(whole, accumulate):
    same(train(accumulate), whole)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """What each of two gloo workers ends with, by accumulation."""
    folder = tmp_path_factory.mktemp("workers")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    workers = [
        subprocess.Popen([sys.executable, __file__, str(rank), folder], env=environment)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=180) for rank in workers] == [0, 0]
    return {a: [load_file(folder / f"{a}-{rank}.safetensors") for rank in range(2)] for a in (1, 2)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_workers_equal_one_worker(whole, two_workers, accumulate):
    first, second = two_workers[accumulate]
    same(first, whole)
    same(second, whole)
    weights = [name for name in first if not name.startswith(("grad.", "loss."))]
    assert all(torch.equal(first[name], second[name]) for name in weights)


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    for accumulate in (1, 2):
        torch.manual_seed(rank)
        save_file(train(accumulate), folder / f"{accumulate}-{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()
