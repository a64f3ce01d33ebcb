"""Devices and frozen parts that are not what their names say are refused before any work."""

import pytest
import torch

from tasks.config.parts import GeneratorConfig, LanguageConfig, RuntimeConfig, VisionConfig
from tasks.parts.checks import DeviceError, PartError, check_device, check_parts, parameters_of


@pytest.mark.parametrize("device", ["cuda:99", "cuda:0,cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(DeviceError, match=r"no cuda:.*this machine has cpu"):
        check_device(RuntimeConfig(device=device))
    check_device(RuntimeConfig(device="cpu"))
    check_device(RuntimeConfig())


class Parts:
    language, vision = LanguageConfig(name="tiny"), VisionConfig(name="embedded")
    generator = GeneratorConfig(name="embedded")


def checked(part, **parts):
    named = Parts()
    vars(named).update({part: parts[part]})
    check_parts(named, RuntimeConfig(device="cpu"), [part])


@pytest.mark.parametrize(
    ("name", "tag", "message"),
    [
        ("ViT-L-14", "openai", "use 'ViT-L-14-quickgelu'"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "give one of .*'openai'"),
        ("ViT-L-41", "openai", "which open_clip does not know.*'ViT-L-14'"),
        ("ViT-L-14-quickgelu", "opnai", "'opnai', which is neither a tag.*'openai'"),
        ("ViT-L-14-quickgelu", "", r"parts\.vision\.pretrained is empty"),
        ("embeded", "openai", "did you mean 'embedded'"),
        ("local-dir:/none/here", "", "nothing at /none/here"),
    ],
)
def test_a_vision_encoder_must_be_known_and_fit_its_weights(name, tag, message):
    with pytest.raises(PartError, match=message):
        checked("vision", vision=VisionConfig(name=name, pretrained=tag))


def test_known_encoders_pass():
    checked("vision", vision=VisionConfig(name="ViT-L-14-quickgelu", pretrained="openai"))
    checked("vision", vision=VisionConfig(name="hf-hub:owner/model"))


def test_names_that_lead_nowhere(tmp_path):
    for name, message in (("embeded", "did you mean 'embedded'"), ("/none/here", "nothing at"),
                          (str(tmp_path), "a folder without the files of a model")):  # fmt: skip
        for part, kind in (("language", LanguageConfig), ("generator", GeneratorConfig)):
            with pytest.raises(PartError, match=message):
                checked(part, **{part: kind(name=name)})


def test_a_model_that_no_memory_holds():
    with pytest.raises(PartError, match=r"take 1800000\.0 GB in bfloat16"):
        checked("language", language=LanguageConfig(name="somebody/model-900000b"))
    checked("language", language=LanguageConfig(name="facebook/opt-125m"))


def test_parameters_are_read_from_a_name_or_a_folder(tmp_path):
    assert parameters_of("facebook/opt-6.7b") == 6.7e9
    assert parameters_of("HuggingFaceTB/SmolLM2-135M-Instruct") == 135e6
    assert parameters_of("gpt2") == parameters_of("stable-diffusion-v1-5") == 0
    (tmp_path / "a.safetensors").write_bytes(b"x" * 4000)
    assert parameters_of(str(tmp_path)) == 1000


def test_workers_need_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    check_device(RuntimeConfig(device="cuda", workers=3))
    check_device(RuntimeConfig(device="cuda:2,cuda:0", workers=2))
    with pytest.raises(DeviceError, match="there are 3"):
        check_device(RuntimeConfig(device="auto", workers=4))
    with pytest.raises(DeviceError, match=r"runtime\.device names 1"):
        check_device(RuntimeConfig(device="cuda:1", workers=2))
