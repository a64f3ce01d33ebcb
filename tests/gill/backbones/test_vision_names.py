"""open_clip's real table of architectures and tags, and micro checkpoints: what fits is loaded."""

import json
import re

import open_clip
import pytest
import torch
from PIL import Image

from gill.backbones import vision
from gill.backbones.vision_names import (
    ActivationMismatchError,
    check_activation,
    check_named,
    check_size,
)
from gill.backbones.whole import IncompleteWeightsError

CPU = torch.device("cpu")
MICRO = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def test_weights_meet_the_activation_that_they_were_trained_with():
    with pytest.raises(ActivationMismatchError, match="use 'ViT-L-14-quickgelu'"):
        vision.load_pretrained("ViT-L-14", "openai", torch.device("cpu"))
    refused = []
    for name, tag in open_clip.list_pretrained():
        wanted = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        try:
            check_activation(name, tag)
        except ActivationMismatchError:
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
            check_activation(part.name, part.pretrained)
    assert RECIPES["opt-6.7b"]().parts.vision.pretrained == "openai"


def test_weights_meet_images_of_the_size_that_they_were_trained_with():
    with pytest.raises(IncompleteWeightsError, match=r"384 pixels.*reads 378; use .*SigLIP-384"):
        vision.load_pretrained("ViT-SO400M-14-SigLIP-378", "webli", CPU)
    refused = set()
    for name, tag in open_clip.list_pretrained():
        try:
            check_size(name, tag)
        except IncompleteWeightsError:
            refused.add((name, tag))
            continue
        digits = re.search(r"-(224|256|336|384|512)(?:-quickgelu)?$", name)
        if digits:  # the architecture's name says it too
            size = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
            assert size == int(digits[1]), (name, tag)
    # open_clip 3.3 declares 256 pixels for the second, whose tower and weights are for 384.
    assert refused == {("ViT-SO400M-14-SigLIP-378", "webli"), ("ViTamin-XL-384", "datacomp1b")}


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-L-14", "", r"pretrained is empty and ViT-L-14 alone has random weights.*'openai'"),
        ("ViT-L-41", "openai", r"'ViT-L-41', which open_clip does not know.*'ViT-L-14'"),
        ("ViT-L-14", "openia", r"'openia', which is neither a tag of ViT-L-14 nor a file"),
        ("local-dir:/no/such/folder", "", r"parts.vision.name is '/no/such/folder'.*nothing at"),
        ("local-dir:~/no such", "", r"nothing at /.*/no such"),
    ],
)
def test_a_name_that_means_no_weights_is_refused(name, pretrained, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        vision.load_pretrained(name, pretrained, CPU)


def test_every_pair_of_the_table_is_a_name():
    for name, tag in open_clip.list_pretrained():
        assert check_named(name, tag) == name


@pytest.fixture
def folder(tmp_path):
    """A local folder in open_clip's layout."""
    described = {"model_cfg": MICRO, "preprocess_cfg": {**HALF, "size": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    return tmp_path


def saved(folder, **changes):
    """Write the weights of the micro model, some of whose text tower is changed."""
    from safetensors.torch import save_file

    model = open_clip.CLIP(**{**MICRO, "text_cfg": {**MICRO["text_cfg"], **changes}})
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return model


def test_a_folder_without_weights_is_refused(folder):
    with pytest.raises(IncompleteWeightsError, match=r"local-dir:.*could not be loaded"):
        vision.load_pretrained(f"local-dir:{folder}", "", CPU)


def test_a_folder_gives_its_own_weights_and_preparation(folder):
    model = saved(folder).eval()
    encoder = vision.load_pretrained(f"local-dir:{folder}", "", CPU)
    assert encoder.mean.flatten().tolist() == encoder.std.flatten().tolist() == [0.5, 0.5, 0.5]
    pixels = encoder.prepare([Image.new("RGB", (40, 32), "red")])
    assert pixels.shape == (1, 3, 32, 32)
    expected = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(encoder.project(encoder.pooled(pixels)), expected)


def test_another_text_width_or_a_missing_tensor_is_listed(folder):
    saved(folder, width=24, heads=2)
    with pytest.raises(IncompleteWeightsError, match="text pos_embed width changed"):
        vision.load_pretrained(f"local-dir:{folder}", "", CPU)
    saved(folder, layers=2)
    with pytest.raises(IncompleteWeightsError, match=r"Unexpected key.*resblocks\.1\.ln_1"):
        vision.load_pretrained(f"local-dir:{folder}", "", CPU)


def test_a_preparation_that_the_tower_was_not_trained_with_is_refused(folder):
    saved(folder)
    encoder = vision.load_pretrained(f"local-dir:{folder}", "", CPU)
    encoder.mean += 0.1
    with pytest.raises(IncompleteWeightsError, match=r"with a mean of \[0.5, 0.5, 0.5\]"):
        vision.check_preparation(encoder, "")
    encoder.mean -= 0.1
    encoder.image_size = 40
    with pytest.raises(IncompleteWeightsError, match=r"\(32, 32\) pixels and its tower reads 40"):
        vision.check_preparation(encoder, "")
