"""The embedded backbones, with their real weights, and the interfaces around the frozen parts."""

import pytest
import torch

from data.sources.embedded_pack import EmbeddedPack
from gill.backbones import image_generator, language, packages, vision
from gill.backbones.testing import micro_models
from gill.evaluation.retrieval import recall
from tasks.parts.identity import GENERATOR, HEADS
from tasks.training.embedded_backbones import _images


@pytest.fixture(scope="module")
def encoder():
    return vision.load_embedded(HEADS)


@pytest.fixture(scope="module")
def generator():
    return image_generator.load_embedded(GENERATOR)


def test_embedded_scorer_matches_held_out_captions_to_images(encoder):
    pairs = [p for p, _ in zip(EmbeddedPack().pairs("test"), range(100), strict=False)]
    pooled = encoder.pooled(encoder.prepare(list(_images(pairs))))
    assert pooled.shape == (100, 1280)
    found = recall(encoder.text([p.caption for p in pairs]), encoder.project(pooled))
    assert found["t2i_r1"] > 0.25  # chance is 0.01
    assert found["t2i_r10"] > 0.6


def test_folded_batch_norms_give_what_the_plain_model_gives(encoder):
    plain = vision.VisionEncoder(*vision.new_embedded(), "plain")
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in encoder.modules())
    size = encoder.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder.pooled(pixels), plain.pooled(pixels), atol=1e-5, rtol=1e-4)


def test_embedded_classifier_weights_are_in_place(encoder):
    # With the checkpoint's tensors in another order the features would hardly differ by image.
    pairs = [p for p, _ in zip(EmbeddedPack().pairs("test"), range(16), strict=False)]
    pooled = encoder.pooled(encoder.prepare(list(_images(pairs))))
    unit = torch.nn.functional.normalize(pooled - pooled.mean(0), dim=-1)
    assert float((unit @ unit.T).fill_diagonal_(0).max()) < 0.9


def test_tensor_and_image_preparation_agree(encoder):
    pairs = [p for p, _ in zip(EmbeddedPack().pairs("test"), range(8), strict=False)]
    images = list(_images(pairs))
    from torchvision.transforms.functional import to_tensor

    tensors = torch.stack([to_tensor(p) for p in images])
    a, b = encoder.prepare(images), encoder.prepare_tensor(tensors)
    assert float((a - b).abs().mean()) < 0.02


def test_a_generated_image_depends_on_its_seed_and_prompt_alone(generator):
    embeds = generator.encode_text(["red apple", "flag of france", "cat"])
    assert embeds.shape == (3, generator.num_tokens, generator.dim) == (3, 32, 384)
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
    with pytest.raises(ValueError, match=r"\(77, 768\).*\(32, 384\)"):
        generator.generate(torch.zeros(1, 77, 768), [0], 1.0, 1)


def test_the_embedded_language_model_converts_once_and_knows_language(tmp_path):
    folder = language.convert_embedded(tmp_path / "llm")
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert language.convert_embedded(folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    model = language.load_pretrained(str(folder), "float32", torch.device("cpu"), "eager")
    assert (model.dim, model.vocab_size, model.tied) == (576, 49152, True)
    ids = torch.tensor(model.tokenize(["The capital of France is"], 16))
    hidden, _ = model.hidden(model.embed(ids), torch.ones_like(ids))
    assert model.tokenizer.decode(model.logits(hidden[0, -1]).argmax()) == " Paris"


def test_parts_stay_in_evaluation_mode_and_frozen(encoder, generator):
    for part in (encoder, generator, micro_models.language_model()):
        part.train()
        assert not any(module.training for module in part.modules())
        assert not any(p.requires_grad for p in part.parameters())


def test_pooled_feature_is_what_open_clip_projects():
    part = micro_models.vision_encoder()
    pixels = torch.randn(3, 3, 32, 32)
    expected = torch.nn.functional.normalize(part.model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(part.project(part.pooled(pixels)), expected, atol=1e-5, rtol=1e-5)
    assert part.pooled_dim == 32


def test_a_missing_package_names_the_remedy():
    with pytest.raises(FileNotFoundError, match="make setup"):
        packages.packaged("no_such_package_here", "*")


def test_weights_meet_the_activation_that_they_were_trained_with():
    import open_clip

    with pytest.raises(vision.ActivationMismatchError, match="use 'ViT-L-14-quickgelu'"):
        vision.load_pretrained("ViT-L-14", "openai", torch.device("cpu"))
    refused = []
    for name, tag in open_clip.list_pretrained():
        wanted = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        try:
            vision.check_activation(name, tag)
        except vision.ActivationMismatchError:
            refused.append((name, tag))
            continue
        assert open_clip.get_model_config(name).get("quick_gelu", False) == wanted, (name, tag)
    assert ("ViT-B-32", "openai") in refused
    assert ("roberta-ViT-B-32", "laion2b_s12b_b32k") in refused  # the other way round
    assert ("ViT-L-14-quickgelu", "openai") not in refused
    assert ("ViT-B-32", "laion2b_s34b_b79k") not in refused


def test_the_recipes_name_architectures_that_fit_their_weights():
    from flows.recipes import RECIPES

    for recipe in RECIPES.values():
        part = recipe().parts.vision
        if part.pretrained:
            vision.check_activation(part.name, part.pretrained)
    assert RECIPES["opt-6.7b"]().parts.vision.pretrained == "openai"
