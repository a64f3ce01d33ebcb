import json

import pytest
import torch

from gill.backbones.embedded import generator as parts
from gill.backbones.embedded.autoencoder import AutoencoderShape, SceneAutoencoder
from gill.backbones.embedded.generator import UNetShape, new_text_encoder, new_unet
from gill.backbones.embedded.text_encoder import TextShape
from gill.backbones.image_generator import new_sampler
from tasks.embedded_training import shipping
from tasks.embedded_training.reader import new_reader


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Untrained weights, shipped as trained ones are."""
    torch.manual_seed(0)
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("autoencoder", "parser", "reader", "generator"):
        torch.save({"step": 3}, folder / f"{name}.pt")
    unet = new_unet(UNetShape(), TextShape())
    vae, encoder = SceneAutoencoder(AutoencoderShape()).eval(), new_text_encoder()
    monkeypatch.setattr(shipping, "averaged_unet", lambda path: (unet, 192))
    monkeypatch.setattr(shipping, "load_autoencoder", lambda path: vae)
    monkeypatch.setattr(shipping, "load_text_encoder", lambda path: encoder)
    monkeypatch.setattr(shipping, "load_reader", lambda path: new_reader().eval())
    found = shipping.ship(folder, tmp_path / "out")
    return tmp_path / "out", found, encoder[0]


def test_what_is_shipped_is_small_and_says_how_it_was_made(shipped):
    out, found, _ = shipped
    assert found["bytes"] < 30 << 20
    record = json.loads((out / "training.json").read_text())
    assert record["generator"]["images_seen"] == found["images"] == 192
    assert record["steps_done"]["parser"] == 3
    assert str(out.parent) not in "".join(f.read_text() for f in out.rglob("*.json"))


def test_what_is_shipped_is_an_image_generator(shipped):
    out, _, encoder = shipped
    generator = parts.load_embedded(out)
    assert (generator.num_tokens, generator.dim, generator.image_size) == (5, 256, 64)
    captions = ["a cat on a beach", "two dogs left of a small bus at night"]
    rows = generator.encode_text(captions)
    assert torch.allclose(rows, generator.encode_text(captions[::-1])[[1, 0]], atol=1e-4)
    ours = dict(encoder.layers.named_parameters())
    for name, value in generator.pipeline.text_encoder.layers.named_parameters():
        assert torch.allclose(value, ours[name], atol=2e-3, rtol=1e-2)
    images = generator.generate(rows, [5, 6], guidance_scale=2.0, steps=2)
    assert images.shape == (2, 3, 64, 64)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    alone = generator.generate(rows[1:], [6], guidance_scale=2.0, steps=2)
    assert torch.allclose(images[1:], alone, atol=1e-3)
    assert parts.load_reader(out / "reader").read(images * 2 - 1)[0].ground >= 0


def test_guidance_of_the_pipeline_is_that_of_training(shipped):
    """The sheets' own sampler and the pipeline draw the same image from the same noise."""
    from gill.backbones.embedded.denoiser import sample_latents

    out, _, _ = shipped
    generator = parts.load_embedded(out)
    rows, empty = generator.encode_text(["a cat"]), generator.encode_text([""])[0]
    pipeline = generator.pipeline
    latents = sample_latents(pipeline.unet, new_sampler(), rows, empty, 9, 3, 2.5)
    ours = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    theirs = generator.generate(rows, [9], guidance_scale=2.5, steps=3)
    assert torch.allclose(ours, theirs, atol=2e-3)


def test_parts_whose_checkpoint_is_gone_are_the_shipped_ones(shipped, tmp_path, monkeypatch):
    from tasks.embedded_training import autoencoder, common, parser, reader

    out, _, encoder = shipped
    for module in (autoencoder, parser, reader):
        monkeypatch.setattr(module, "SHIPPED", out)
    gone = tmp_path / "gone"
    vae = autoencoder.load_autoencoder(gone)
    assert not any(p.requires_grad for p in vae.parameters())
    queries = parser.load_text_encoder(gone)[0].layers.queries
    assert torch.allclose(queries, encoder.layers.queries, atol=1e-3)
    assert reader.load_reader(gone).shape.objects == 120
    with pytest.raises(FileNotFoundError, match="'autoencoder' first"):
        common.load(gone / "autoencoder.pt")
