from collections import Counter

import pytest
import torch

from gill.backbones.embedded.autoencoder import (
    AutoencoderShape,
    SceneAutoencoder,
    reconstruction_loss,
)
from gill.backbones.embedded.captions import CaptionStates, ChunkOrder
from gill.backbones.embedded.denoiser import MovingAverage, velocity_loss
from gill.backbones.embedded.heads import image_features
from gill.backbones.embedded.reader import Found, ReaderShape, SceneReader, _objects, reader_loss
from gill.backbones.embedded.text_encoder import TextLayers, TextShape
from gill.backbones.image_generator import new_scheduler

MICRO = AutoencoderShape(channels=4, wide=16, middle=16)


def test_latents_are_normalised_and_an_eighth_of_the_edge():
    torch.manual_seed(0)
    vae = SceneAutoencoder(MICRO).train()
    images = torch.rand(16, 3, 64, 64) * 2 - 1
    latents, decoded = vae(images, noise=0.3)
    assert latents.shape == (16, 4, 8, 8)
    assert decoded.shape == images.shape
    assert latents.mean((0, 2, 3)).abs().max() < 1e-5
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-2
    vae.eval()
    assert torch.equal(vae.decode(latents).sample, vae.decode(latents, return_dict=False)[0])


def test_reconstruction_loss_is_the_plain_one():
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    error = a - b
    across = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    assert torch.allclose(reconstruction_loss(a, b), error.abs().mean() + (across + down) / 2)
    assert reconstruction_loss(a, a) == 0


def test_text_rows_do_not_depend_on_padding():
    torch.manual_seed(0)
    shape = TextShape(states=16, tokens=8, queries=3, width=16, depth=2, heads=2, hidden=16)
    layers = TextLayers(shape).eval()
    states, mask = torch.randn(2, 8, 16), torch.tensor([[1] * 5 + [0] * 3, [1] * 8])
    rows = layers(states, mask)
    assert rows.shape == (2, 3, 16)
    assert torch.allclose(rows[:1], layers(states[:1, :5], mask[:1, :5]), atol=1e-5)
    assert not torch.allclose(rows[1:], layers(states[1:, :5], mask[1:, :5]), atol=1e-2)
    assert (rows.std(-1, unbiased=False) - 1).abs().max() < 1e-2


def test_rows_of_states_are_cut_to_the_longest():
    states = CaptionStates(torch.randn(3, 6, 2), torch.tensor([[1, 1, 0, 0, 0, 0]] * 2 + [[1] * 6]))
    assert states.rows(torch.tensor([0, 1])).states.shape == (2, 2, 2)
    assert states.rows(torch.tensor([0, 2])).mask.shape == (2, 6)


def test_each_chunk_is_used_so_many_times_and_whole():
    order = ChunkOrder(chunk=12, batch=4, passes=3)
    seen = Counter()
    for step in range(18):
        chunk, rows = order.rows(step)
        seen.update((chunk, int(r)) for r in rows)
    assert set(seen.values()) == {3}
    assert {c for c, _ in seen} == {0, 1}
    assert [int(r) for s in range(3) for r in order.rows(s)[1]] != list(range(12))


def test_moving_average_is_short_at_first():
    module, copy = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    average = MovingAverage(module, copy)
    expected = module.weight.detach().clone()
    for n in range(1, 6):
        torch.nn.init.constant_(module.weight, float(n))
        average.update(module)
        decay = (1 + n) / (10 + n)
        expected = decay * expected + (1 - decay) * n
    assert torch.allclose(average.average.weight, expected, atol=1e-6)


class Perfect:
    """Denoises with the clean latents at hand."""

    def __init__(self, scheduler, latents, error=0.0):
        self.scheduler, self.latents, self.error = scheduler, latents, error

    def __call__(self, noised, times, prompt):
        a = self.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        noise = (noised - a.sqrt() * self.latents) / (1 - a).sqrt()
        velocity = self.scheduler.get_velocity(self.latents, noise, times)
        return type("Out", (), {"sample": velocity + self.error})


def test_velocity_loss_is_nought_for_the_true_velocity_and_weighted_otherwise():
    torch.manual_seed(0)
    scheduler = new_scheduler()
    latents, rows = torch.randn(64, 4, 8, 8), torch.randn(64, 5, 8)
    loss = velocity_loss(Perfect(scheduler, latents), scheduler, latents, rows, rows[0])
    assert float(loss) < 1e-3
    wrong = velocity_loss(Perfect(scheduler, latents, 1.0), scheduler, latents, rows, rows[0])
    assert 0.5 < float(wrong) < 1.0  # the weight is 1 where noise is strong, less where it is weak


def test_quadrants_are_means_of_their_quarters():
    class Trunk:
        def forward_features(self, x):
            return x

    maps = torch.randn(2, 3, 4, 4)
    found = image_features(Trunk(), maps)
    quarters = [maps[:, :, y : y + 2, x : x + 2].mean((2, 3)) for y in (0, 2) for x in (0, 2)]
    assert torch.allclose(found["quadrants"], torch.cat(quarters, 1), atol=1e-6)
    assert torch.allclose(found["pooled"], maps.mean((2, 3)), atol=1e-6)


def painted_cells(objects, sizes=(3, 4)):
    """Maps as an errorless reader gives them, for (kind, size, x, y)."""
    maps = [[[0] * 8 for _ in range(8)] for _ in range(4)]
    for kind, size, x, y in objects:
        for i in range(sizes[size]):
            for j in range(sizes[size]):
                for plane, value in enumerate((kind + 1, size, i, j)):
                    maps[plane][y + j][x + i] = value
    return maps


def test_cells_that_agree_make_objects():
    truth = [(5, 0, 0, 1), (5, 0, 5, 5), (9, 1, 4, 0)]
    found = _objects(painted_cells(truth), (3, 4))
    assert sorted((o.kind, o.size, o.x, o.y) for o in found) == sorted(
        (k, s, x + (3, 4)[s] / 2, y + (3, 4)[s] / 2) for k, s, x, y in truth
    )
    assert {o.share for o in found} == {1.0}


def test_stray_cells_make_none():
    maps = painted_cells([(2, 1, 2, 2)])
    maps[0][0][0], maps[1][0][0] = 8, 0  # one cell that says something else
    maps[0][3][3] = 8
    assert [o.kind for o in _objects(maps, (3, 4))] == [2]
    assert _objects(painted_cells([]), (3, 4)) == []


@pytest.mark.parametrize("batch", [1, 3])
def test_reader_learns_and_reads(batch):
    torch.manual_seed(0)
    reader = SceneReader(ReaderShape(3, (3, 4), 2, middle=16, wide=16, blocks=1))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    cells = torch.tensor([painted_cells([(1, 0, 2, 3)]), painted_cells([(2, 1, 0, 4)])])
    cells[:, 1:][cells[:, :1].expand(-1, 3, -1, -1) == 0] = -1
    ground = torch.tensor([0, 1])
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    for _ in range(60):
        loss = reader_loss(*reader(images), cells, ground)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    readings = reader.read(images, batch)
    assert [r.ground for r in readings] == [0, 1]
    assert [[(o.kind, o.size, o.x, o.y) for o in r.objects] for r in readings] == [
        [(1, 0, 3.5, 4.5)],
        [(2, 1, 2.0, 6.0)],
    ]
    assert isinstance(readings[0].objects[0], Found)
