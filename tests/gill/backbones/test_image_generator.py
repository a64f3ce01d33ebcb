"""Diffusers pipelines of several families as image generators: micro parts from their configs."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gill.backbones import decoding_in_parts
from gill.backbones.embedded.generator import load_embedded
from gill.backbones.image_generator import (
    ImageGenerator,
    UnsuitableGeneratorError,
    load_pretrained,
    new_scheduler,
)
from gill.backbones.pipelines import check_pipeline
from gill.backbones.testing import micro_models
from gill.backbones.testing.micro_generators import REFUSED, built, flux, sd2, sd3, sdxl
from gill.backbones.whole import IncompleteWeightsError
from tasks.parts.identity import WEIGHTS

CPU = torch.device("cpu")
# rows and width of a target, width of the pooled embedding
FAMILIES = {
    "sd2": (sd2, 8, 24, 0),
    "sdxl": (sdxl, 8 + 1, 40, 12),
    "sdxl-refinerless": (lambda: sdxl(zeros=False), 8 + 1, 40, 12),
    "sd3": (sd3, 8 + 256 + 1, 48, 28),
    "flux": (flux, 512 + 1, 24, 16),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    make, *sizes = FAMILIES[request.param]
    torch.manual_seed(5)
    return ImageGenerator(make(), request.param), sizes


def test_sizes_are_read_from_the_parts(family):
    generator, (rows, width, pooled) = family
    assert (generator.num_tokens, generator.dim, generator.pooled_dim) == (rows, width, pooled)
    target = generator.encode_text(["a cat", "b"])
    assert target.shape == (2, rows, width)
    assert generator.image_size == 16
    if pooled:
        assert float(target[:, -1, :pooled].abs().max()) > 0
        assert float(target[:, -1, pooled:].abs().max()) == 0
    assert not any(p.requires_grad for p in generator.parameters())


def test_targets_drive_the_pipeline_as_its_own_text_does(family):
    generator, _ = family
    target = generator.encode_text(["a cat", "dog"])
    ours = generator.generate(target, [5, 6], 3.0, 2)
    theirs = generator.pipeline(
        ["a cat", "dog"], guidance_scale=3.0, num_inference_steps=2, output_type="pt",
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
    ).images  # fmt: skip
    assert ours.shape == (2, 3, 16, 16)
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=0)
    alone = generator.generate(target[1:], [6], 3.0, 2)
    torch.testing.assert_close(alone[0], ours[1], atol=1e-4, rtol=0)
    other = generator.generate(target.flip(0), [5, 6], 3.0, 2)
    assert float((other - ours).abs().max()) > 1e-4, (
        "the target has no fingerprint_fields on the image"
    )


def test_the_pooled_row_bears_on_the_image():
    torch.manual_seed(5)
    generator = ImageGenerator(sdxl(), "my-sdxl")
    target = generator.encode_text(["a cat"])
    changed = target.clone()
    changed[:, -1, : generator.pooled_dim] += 3
    images = [generator.generate(t, [5], 3.0, 2) for t in (target, changed)]
    assert float((images[0] - images[1]).abs().max()) > 1e-5


def test_a_pooled_embedding_wider_than_the_rows_is_refused():
    pipeline = sdxl()
    pipeline.text_encoder_2.text_projection = torch.nn.Linear(24, 99, bias=False)
    with pytest.raises(UnsuitableGeneratorError, match=r"my-sdxl.*width 99, wider than its 40"):
        ImageGenerator(pipeline, "my-sdxl")


def test_a_pipeline_without_prompt_embeddings_is_refused():
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline(unet=micro_models.unet(8), scheduler=new_scheduler())
    with pytest.raises(UnsuitableGeneratorError, match=r"plain .*does not take prompt_embeds"):
        ImageGenerator(pipeline, "plain")


@pytest.mark.parametrize("name", REFUSED)
def test_a_kind_that_one_sequence_of_embeddings_cannot_drive_is_refused(name, tmp_path):
    import diffusers

    with pytest.raises(UnsuitableGeneratorError, match=rf"mine \({name}\) .*{REFUSED[name][1]}"):
        check_pipeline("mine", getattr(diffusers, name))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(UnsuitableGeneratorError, match=REFUSED[name][1]):  # and reads no weights
        load_pretrained(str(tmp_path), CPU)


def test_flux_takes_the_guidance_as_an_input():
    generator = ImageGenerator(built("flux"), "my-flux")
    target = generator.encode_text(["a cat"])
    weak, strong = (generator.generate(target, [5], scale, 1) for scale in (1.0, 30.0))
    assert float((weak - strong).abs().max()) > 1e-5
    assert generator.count_tokens(["a cat"]) == [6]


@pytest.fixture
def saved(tmp_path):
    """A saved Stable Diffusion."""
    built("sd1").save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_gives_what_was_saved_and_its_text_encoder_alone_gives_the_same_targets(saved):
    expected = ImageGenerator(built("sd1"), "made").encode_text(["a cat"])
    whole, alone = (load_pretrained(str(saved), CPU, sampler) for sampler in (True, False))
    for found in (whole, alone):
        assert torch.equal(found.encode_text(["a cat"]), expected)
        assert (found.num_tokens, found.dim, found.image_size) == (8, 16, 16)
    weights = [p for p in alone.parameters() if not p.is_meta]
    assert sum(p.numel() for p in weights) == sum(
        p.numel() for p in whole.pipeline.text_encoder.parameters()
    )
    assert whole.generate(expected, [1], 2.0, 1).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"text encoder alone and samples none"):
        alone.generate(expected, [1], 2.0, 1)


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "flux"])
def test_text_encoders_alone_serve_families_that_look_at_their_denoiser(kind, tmp_path):
    built(kind).save_pretrained(tmp_path)
    whole, alone = (load_pretrained(str(tmp_path), CPU, sampler) for sampler in (True, False))
    assert torch.equal(alone.encode_text(["a cat"]), whole.encode_text(["a cat"]))


def test_a_folder_of_one_precision_alone_is_read(tmp_path):
    pipeline = built("sd1").to(torch.float16)
    pipeline.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    found = load_pretrained(str(tmp_path), CPU)
    expected = pipeline.to(torch.float32).text_encoder.state_dict()
    assert all(
        torch.equal(v, expected[k]) for k, v in found.pipeline.text_encoder.state_dict().items()
    )


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_a_part_that_are_not_whole_are_listed(saved, part):
    [file] = (saved / part).glob("*.safetensors")
    weights = load_file(file)
    name = sorted(weights)[0]
    save_file({k: v for k, v in weights.items() if k != name}, file, {"format": "pt"})
    with pytest.raises(IncompleteWeightsError, match=rf"{part} .*lacks .*{name.split('.')[-2]}"):
        load_pretrained(str(saved), CPU)
    save_file({**weights, "extra": torch.zeros(2)}, file, {"format": "pt"})
    with pytest.raises(IncompleteWeightsError, match=rf"{part} .*beside them extra"):
        load_pretrained(str(saved), CPU)
    save_file({**weights, name: torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(IncompleteWeightsError, match=rf"{part} .*{name.split('.')[-2]}"):
        load_pretrained(str(saved), CPU)
    file.unlink()
    with pytest.raises(IncompleteWeightsError, match=rf"{part} holds no weights as safetensors"):
        load_pretrained(str(saved), CPU)


def test_a_missing_folder_a_single_file_and_a_folder_without_a_pipeline_are_named(saved, tmp_path):
    index = saved / "model_index.json"
    described = json.loads(index.read_text())
    index.write_text(
        json.dumps({**described, "text_encoder_3": ["transformers", "T5EncoderModel"]})
    )
    with pytest.raises(IncompleteWeightsError, match=r"no folder 'text_encoder_3'.*\[null, null\]"):
        load_pretrained(str(saved), CPU)
    index.write_text(json.dumps({**described, "_class_name": "NewestPipeline"}))
    with pytest.raises(ValueError, match=r"NewestPipeline, which diffusers .* does not know"):
        load_pretrained(str(saved), CPU)
    index.unlink()
    with pytest.raises(ValueError, match=r"without model_index.json"):
        load_pretrained(str(saved), CPU)
    single = tmp_path / "v1-5.safetensors"
    single.touch()
    with pytest.raises(ValueError, match=r"single file.*from_single_file.*save_pretrained"):
        load_pretrained(str(single), CPU)


@pytest.fixture(scope="module")
def generator():
    return load_embedded(WEIGHTS)


def test_a_generated_image_depends_on_its_seed_and_prompt_alone(generator):
    embeds = generator.encode_text(["a cat on a beach", "two apples in a meadow", "a rocket"])
    assert embeds.shape == (3, generator.num_tokens, generator.dim) == (3, 5, 256)
    together = generator.generate(embeds, [1, 2, 3], 3.0, 3)
    assert together.shape == (3, 3, 64, 64)
    assert 0 <= float(together.min()) <= float(together.max()) <= 1
    alone = generator.generate(embeds[1:2], [2], 3.0, 3)
    torch.testing.assert_close(alone[0], together[1], atol=1e-3, rtol=0)
    other = generator.generate(embeds[1:2], [9], 3.0, 3)
    assert float((alone - other).abs().mean()) > 0.01


def test_prompt_embeddings_equal_the_pipelines_own_text_path(generator):
    embeds = generator.encode_text(["red apple"])
    ours = generator.generate(embeds, [5], 3.0, 2)
    theirs = generator.pipeline(
        ["red apple"], guidance_scale=3.0, num_inference_steps=2, output_type="pt",
        generator=[torch.Generator().manual_seed(5)],
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=0)


def test_embeddings_of_another_shape_are_refused(generator):
    with pytest.raises(ValueError, match=r"\(77, 768\).*\(5, 256\)"):
        generator.generate(torch.zeros(1, 77, 768), [0], 1.0, 1)


def test_many_images_are_decoded_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(decoding_in_parts, "DECODED_PIXELS", 2 * 16**2 + 1)
    pipeline = micro_models.image_generator().pipeline
    del pipeline.vae.decode  # as it was before
    counts, original = [], pipeline.vae.decode

    def decode(latents, **named):
        counts.append(len(latents))
        return original(latents, **named)

    pipeline.vae.decode = decode
    parts = ImageGenerator(pipeline, "micro")
    embeddings = torch.randn(5, 8, 16)
    found = parts.generate(embeddings, range(5), 1.0, 2)
    assert counts == [2, 2, 1]
    latents = torch.randn(3, 4, 8, 8)
    whole = parts.pipeline.vae.decode(latents).sample
    torch.testing.assert_close(whole, original(latents).sample)
    pipeline.vae.decode = original
    torch.testing.assert_close(found, parts.generate(embeddings, range(5), 1.0, 2))
