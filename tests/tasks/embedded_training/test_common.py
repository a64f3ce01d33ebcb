"""What the steps share: checkpoints, images of scenes, and a training that goes on."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from data.scenes.grammar import World
from data.scenes.painter import paint
from gill.training import Optimization, Trainer
from tasks.embedded_training.common import drive, images_of, load, only_shipped, save


def test_images_are_the_painters_between_minus_one_and_one():
    world = World(40)
    images = images_of(world, "test", 5, 2)
    assert images.shape == (2, 3, 64, 64)
    for image, number in zip(images, (5, 6), strict=True):
        pixels = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(pixels, paint(world.scene("test", number)))


def test_a_part_is_taken_from_what_is_shipped_only_without_a_checkpoint(tmp_path):
    checkpoint, shipped = tmp_path / "a.pt", tmp_path / "shipped"
    assert not only_shipped(checkpoint, shipped)  # neither: the step must be run
    shipped.mkdir()
    assert only_shipped(checkpoint, shipped)
    checkpoint.touch()
    assert not only_shipped(checkpoint, shipped)


def test_a_checkpoint_is_written_whole_and_a_missing_one_names_its_step(tmp_path):
    path = tmp_path / "deep" / "parser.pt"
    save(path, {"x": torch.ones(2)})
    assert torch.equal(load(path)["x"], torch.ones(2))
    assert [p.name for p in path.parent.iterdir()] == ["parser.pt"]
    with pytest.raises(FileNotFoundError, match=r"reader\.pt is missing; run the step 'reader'"):
        load(tmp_path / "reader.pt")


def trained(path, steps, said=None):
    """A small training of so many updates; the weights it ends with and the batches it saw."""
    torch.manual_seed(0)
    module, seen = nn.Linear(3, 1), []
    config = Optimization(steps=steps, schedule="step")
    trainer = Trainer(module, lambda b: {"loss": module(b).square().mean()}, config)

    def batches(step):
        while True:
            seen.append(step)
            yield torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            step += 1

    drive(trainer, batches, path, every=3, after_checkpoint=said)
    return module.weight.detach(), seen[:steps]


def test_a_training_goes_on_and_may_be_made_longer(tmp_path, caplog):
    whole, _ = trained(tmp_path / "whole.pt", 10)
    done = []
    with caplog.at_level(logging.INFO, "gill.backbones"):
        trained(tmp_path / "part.pt", 5, done.append)
        longer, seen = trained(tmp_path / "part.pt", 10, done.append)
    assert torch.equal(whole, longer)
    assert seen[0] == 5
    assert done == [3, 5, 6, 9, 10]  # every third update, and the last of each run
    assert "part goes on from update 5" in caplog.messages
    assert caplog.messages[-1].startswith("part: 10 updates, 40 examples, loss ")


def test_a_finished_training_is_left_as_it_is(tmp_path):
    first, _ = trained(tmp_path / "a.pt", 4)
    stamp = (tmp_path / "a.pt").stat().st_mtime_ns
    again, _ = trained(tmp_path / "a.pt", 4)
    assert torch.equal(first, again)
    assert (tmp_path / "a.pt").stat().st_mtime_ns == stamp
