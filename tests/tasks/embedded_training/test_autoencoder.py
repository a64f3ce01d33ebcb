"""The step ``autoencoder`` with a micro shape: what is trained, kept and loaded again."""

import pytest
import torch

from gill.backbones.embedded.autoencoder import AutoencoderShape
from gill.training import Optimization
from tasks.embedded_training import autoencoder
from tasks.embedded_training.autoencoder import load_autoencoder, train_autoencoder, train_decoder
from tasks.embedded_training.common import images_of, load

pytestmark = pytest.mark.slow  # trains


@pytest.fixture
def micro(monkeypatch, tmp_path):
    """A few updates of a small autoencoder, with nothing shipped beside it."""

    def run(steps, seed):
        changes = {"steps": steps, "warmup_steps": 1, "precision": "float32", "seed": seed}
        return Optimization(**{**vars(autoencoder.AUTOENCODER_RUN), **changes})

    monkeypatch.setattr(
        autoencoder, "AutoencoderShape", lambda: AutoencoderShape(channels=4, wide=16, middle=16)
    )
    monkeypatch.setattr(autoencoder, "AUTOENCODER_RUN", run(12, 1))
    monkeypatch.setattr(autoencoder, "DECODER_RUN", run(4, 2))
    monkeypatch.setattr(autoencoder, "AUTOENCODER_BATCH", 4)
    monkeypatch.setattr(autoencoder, "SHIPPED", tmp_path / "nothing")
    return tmp_path


def test_it_learns_and_the_statistics_of_its_latents_are_kept(micro):
    found = train_autoencoder(micro)
    assert 0 < found["absolute_error"] < 0.8
    assert 0 < found["standard_error"] < found["absolute_error"]
    loaded = load_autoencoder(micro)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    statistics = load(micro / "autoencoder.pt")["companions"]["statistics"]
    assert torch.equal(loaded.scale.running_var, statistics["running_var"])
    assert not torch.equal(statistics["running_var"], torch.ones(4))


def test_a_later_decoder_leaves_the_latents_as_they_are(micro):
    train_autoencoder(micro)
    before, images = load_autoencoder(micro), images_of(autoencoder.World(40), "test", 0, 2)
    train_decoder(micro)
    after = load_autoencoder(micro)
    latents = before.latents(images)
    assert torch.equal(after.latents(images), latents)
    assert not torch.equal(after.decode(latents).sample, before.decode(latents).sample)


def test_without_a_checkpoint_and_nothing_shipped_the_step_is_named(micro):
    with pytest.raises(FileNotFoundError, match="run the step 'autoencoder' first"):
        load_autoencoder(micro)
