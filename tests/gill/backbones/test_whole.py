"""A language model whose checkpoint is damaged, or whose path leads elsewhere, is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gill.backbones.language import load_pretrained
from gill.backbones.testing import micro_models
from gill.backbones.testing.families import LANGUAGE
from gill.backbones.whole import IncompleteWeightsError, located

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """A saved Llama with an output layer of its own."""
    LANGUAGE["llama"].build().save_pretrained(tmp_path)
    micro_models.tokenizer().save_pretrained(tmp_path)
    return tmp_path


def edit(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_whole_checkpoint_loads(folder):
    assert load_pretrained(str(folder), "float32", CPU).dim == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("lm_head.weight"), r"lacks lm_head\.weight"),
        (
            lambda w: [w.pop(k) for k in list(w) if "layers.1.mlp" in k],
            r"lacks model\.layers\.1\.mlp\.down_proj\.weight, .*up_proj",
        ),
        (lambda w: w.update(extra=torch.zeros(2)), r"has beside them extra"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(31)}),
            r"other shapes model\.norm\.weight \(\(31,\) instead of \(32,\)\)",
        ),
    ],
)
def test_tensors_that_are_missing_left_over_or_misshapen_are_listed(folder, change, message):
    edit(folder, change)
    with pytest.raises(IncompleteWeightsError, match=message):
        load_pretrained(str(folder), "float32", CPU)


def test_buffers_of_older_versions_are_no_weights(folder):
    old = ("model.decoder.version", "model.layers.0.attn.bias", "h.0.attn.masked_bias")
    edit(folder, lambda w: w.update({name: torch.ones(1) for name in old}))
    assert load_pretrained(str(folder), "float32", CPU).dim == 32
    edit(folder, lambda w: w.update({"model.layers.0.c_attn.bias": torch.ones(1)}))
    with pytest.raises(IncompleteWeightsError, match=r"has beside them model\.layers\.0\.c_attn"):
        load_pretrained(str(folder), "float32", CPU)


def test_an_adapter_a_gguf_folder_and_an_empty_folder_are_refused(folder, tmp_path):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ValueError, match=r"holds an adapter .*merge_and_unload"):
        load_pretrained(str(folder), "float32", CPU)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match=r"other'.* without config\.json"):
        load_pretrained(str(other), "float32", CPU)
    (other / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"GGUF files alone; .*save_pretrained"):
        load_pretrained(str(other), "float32", CPU)
    with pytest.raises(ValueError, match=r"model\.gguf', a single file; .*gguf_file"):
        load_pretrained(str(other / "model.gguf"), "float32", CPU)


@pytest.mark.parametrize(
    "name", ["/no/such", "./here", "~/no such", "a/b/c", "model.gguf", "../up"]
)
def test_a_path_that_leads_nowhere_is_named(name):
    with pytest.raises(FileNotFoundError, match=r"key is .* nothing at /"):
        located(name, "key")


def test_names_of_the_hub_pass_and_others_do_not():
    assert located("gpt2", "key") == "gpt2"
    assert located("facebook/opt-6.7b", "key") == "facebook/opt-6.7b"
    with pytest.raises(ValueError, match="owner/name"):
        located("two words", "key")


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "llm").mkdir()
    assert located("~/llm", "key") == str(tmp_path / "llm")
