import json

import pytest
import torch

from gill.backbones.embedded.autoencoder import AutoencoderShape, SceneAutoencoder
from gill.backbones.embedded.generator import UNetShape
from tasks.embedded_training import generator


class Killed(RuntimeError):
    pass


@pytest.fixture
def micro(monkeypatch):
    torch.manual_seed(3)
    vae = SceneAutoencoder(AutoencoderShape(wide=16, middle=16)).eval()
    monkeypatch.setattr(generator, "load_autoencoder", lambda folder: vae)
    monkeypatch.setattr(generator, "UNetShape", lambda: UNetShape(widths=(16, 32), heads=2))
    monkeypatch.setattr(generator, "BATCH", 4)
    monkeypatch.setattr(generator, "CHUNK", 8)
    monkeypatch.setattr(generator, "PASSES", 2)
    monkeypatch.setattr(generator, "CHECKPOINT_EVERY", 3)
    monkeypatch.setattr(generator, "MILESTONES", (20,))


def weights(folder):
    return torch.load(folder / "generator.pt", weights_only=True)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_killed_training_ends_with_the_same_weights(micro, tmp_path, monkeypatch):
    generator.train_generator(tmp_path / "whole", images=40)
    made = generator.Chunks.make

    def dies(self, number):
        if number == 2:
            raise Killed
        return made(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(generator.Chunks, "make", dies)
        with pytest.raises(Killed):
            generator.train_generator(tmp_path / "killed", images=40)
    assert weights(tmp_path / "killed")["step"] == 6  # it had done 8 of 10 updates
    generator.train_generator(tmp_path / "killed", images=40)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    milestones = [torch.load(tmp_path / f / "unet-20.pt") for f in ("whole", "killed")]
    assert milestones[0]["images"] == 24
    assert equal(*milestones)


def test_it_begins_from_what_was_shipped(micro, tmp_path):
    generator.train_generator(tmp_path / "first", images=24)
    unet, images = generator.averaged_unet(tmp_path / "first" / "generator.pt")
    unet.half().save_pretrained(tmp_path / "shipped" / "unet")
    record = {"generator": {"images_seen": images}}
    (tmp_path / "shipped" / "training.json").write_text(json.dumps(record))
    generator.train_generator(tmp_path / "second", images=24, shipped=tmp_path / "shipped")
    assert not (tmp_path / "second" / "generator.pt").exists()  # nothing was left to do
    found = generator.train_generator(tmp_path / "second", images=36, shipped=tmp_path / "shipped")
    assert found == {"images": 36.0}
    shipped = {k: v.float() for k, v in unet.state_dict().items()}
    now = weights(tmp_path / "second")["module"]
    moved = max(float((now[k] - shipped[k]).abs().max()) for k in now)
    assert 0 < moved < 0.02  # three updates of a learning rate of 1e-3 from the shipped weights


def test_the_curriculum_changes_at_its_marks():
    for phase in generator.CURRICULUM:
        assert generator.world_at(phase.start) == phase.world
        if phase.start:
            assert generator.world_at(phase.start - 1) != phase.world
