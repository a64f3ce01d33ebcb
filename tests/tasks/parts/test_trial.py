"""Frozen parts are loaded and used once before a run."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from flows.recipes import tiny
from gill.backbones.testing import micro_models
from gill.backbones.testing.families import LANGUAGE
from gill.backbones.testing.micro_generators import built
from tasks.config.parts import GeneratorConfig, LanguageConfig
from tasks.parts.checks import PartError
from tasks.parts.trial import try_parts, try_parts_apart


@pytest.fixture
def parts(tmp_path):
    """Micro parts in folders."""
    LANGUAGE["llama"].build().save_pretrained(tmp_path / "llm")
    micro_models.tokenizer().save_pretrained(tmp_path / "llm")
    built("sd1").save_pretrained(tmp_path / "sd")
    changes = {
        "language": LanguageConfig(name=str(tmp_path / "llm"), precision="float32"),
        "generator": GeneratorConfig(name=str(tmp_path / "sd"), steps=2),
    }
    return tiny().parts.model_copy(update=changes)


def test_whole_parts_pass(parts):
    try_parts(parts, tiny().runtime, ["language", "vision", "generator", "text_encoder"])


def test_a_denoiser_is_wanted_only_for_images(parts, tmp_path):
    next((tmp_path / "sd" / "unet").glob("*.safetensors")).unlink()
    try_parts(parts, tiny().runtime, ["language", "text_encoder"])
    with pytest.raises(PartError, match=r"^parts\.generator: .*unet holds no weights"):
        try_parts(parts, tiny().runtime, ["generator", "text_encoder"])


def test_numbers_that_are_not_finite_are_named(parts, tmp_path):
    model = LANGUAGE["llama"].build()
    model.get_input_embeddings().weight.data[3] = torch.inf
    model.save_pretrained(tmp_path / "llm")
    with pytest.raises(
        PartError, match=r"^parts\.language: .*llm makes embeddings that are not finite"
    ):
        try_parts(parts, tiny().runtime, ["language"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("model.layers.0.mlp.up_proj.weight", "hidden states"),
        ("lm_head.weight", "logits"),
    ],
)
def test_weights_that_are_no_numbers_are_said_before_what_comes_of_them(
    parts, tmp_path, name, what
):
    path = tmp_path / "llm" / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, name: weights[name] * torch.nan}, path, {"format": "pt"})
    with pytest.raises(PartError, match=rf"llm makes {what} that are not finite numbers"):
        try_parts(parts, tiny().runtime, ["language"])


@pytest.mark.parametrize(
    ("kind", "file"),
    [("language", "llm/model.safetensors"), ("text_encoder", "sd/text_encoder/model.safetensors")],
)
def test_a_file_that_was_cut_is_said_of_its_part(parts, tmp_path, kind, file):
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(data[: len(data) // 2])
    setting = "language" if kind == "language" else "generator"
    with pytest.raises(PartError, match=rf"^parts\.{setting}: \S+"):
        try_parts(parts, tiny().runtime, [kind])


@pytest.mark.process
def test_a_process_of_its_own_says_what_is_wrong(parts):
    try_parts_apart(tiny().parts, tiny().runtime, ["language"])  # ships with the project
    wrong = LanguageConfig(name="/no/such/llm", precision="float32")
    changed = parts.model_copy(update={"language": wrong})
    with pytest.raises(PartError, match=r"no/such/llm.* nothing at"):
        try_parts_apart(changed, tiny().runtime, ["language"])
