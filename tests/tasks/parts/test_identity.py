"""Weights are told apart without loading them."""

import os
import shutil

import pytest

from tasks.config.parts import GeneratorConfig, LanguageConfig, VisionConfig
from tasks.parts import identity as identities
from tasks.parts.identity import WEIGHTS, identity, shipped_digests

SHIPPED = sorted(path.name for path in WEIGHTS.iterdir() if path.is_dir())


def test_embedded_parts_differ_by_kind_and_settings():
    found = {
        identity("language", LanguageConfig(name=name, precision=precision))
        for name in ("tiny", "embedded")
        for precision in ("float32", "bfloat16")
    }
    assert len(found) == 4


def test_a_folder_is_what_its_files_are(tmp_path):
    file = tmp_path / "sub" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    part = LanguageConfig(name=str(tmp_path))
    first = identity("language", part)
    assert identity("language", part) == first
    file.write_bytes(b"another")
    os.utime(file, ns=(1, 1))
    second = identity("language", part)
    assert second != first
    (tmp_path / "config.json").write_text("{}")
    assert identity("language", part) not in {first, second}


def test_a_folder_is_known_by_what_it_holds_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    weights.parent.mkdir()
    for name, tag in (("local-dir:~/clip", ""), ("~/clip", ""), ("ViT-L-14", str(weights))):
        part = VisionConfig(name=name, pretrained=tag)
        found = []
        for content in (b"one", b"other"):
            weights.write_bytes(content)
            found.append(identity("vision", part))
        assert found[0] != found[1], name


@pytest.mark.parametrize("folder", SHIPPED)
def test_every_shipped_folder_bears_on_the_part_that_reads_it(folder, tmp_path, monkeypatch):
    weights = shutil.copytree(WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(identities, "WEIGHTS", weights)

    def found():
        generator = GeneratorConfig(name="embedded")
        parts = [identity(kind, generator) for kind in ("generator", "text_encoder")]
        return [*parts, shipped_digests("reader")]

    before = found()
    for file in sorted((weights / folder).iterdir()):
        file.write_bytes(file.read_bytes() + b" ")
        after = found()
        changed = [one != other for one, other in zip(before, after, strict=True)]
        reader = folder == "reader"
        assert changed == [not reader, folder == "text_layers", reader], file
        before = after
