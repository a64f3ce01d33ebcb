"""Stand-ins in folders: the real loaders and checks take them, and they are made once."""

from dataclasses import replace

import pytest
import torch
from micro_rehearsal import MICRO, PUBLISHED

from flows.recipes import resolve
from flows.rehearsal.sizes import REHEARSALS
from flows.rehearsal.stand_ins import bytes_of, make_stand_ins
from tasks.config.parts import RuntimeConfig
from tasks.parts.checks import check_parts
from tasks.parts.trial import try_parts
from tasks.runner import room
from tasks.runner.room import DiskFullError

CPU = RuntimeConfig(device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("rehearsal"), []
    make_stand_ins(MICRO.parts, folder, said.append)
    assert len(said) == 3
    return folder


def test_checks_and_the_trial_of_parts_refuse_nothing(made):
    parts = resolve("opt-6.7b", MICRO.overrides(made)).parts
    check_parts(parts, CPU, ["language", "vision", "generator"])
    try_parts(parts, CPU, ["language", "vision", "generator", "text_encoder"])


def test_they_are_found_again_and_only_what_differs_is_made(made):
    said = []
    make_stand_ins(MICRO.parts, made, said.append)
    assert said == []
    deeper = replace(MICRO.parts, language=PUBLISHED.language)
    before = (made / "vision" / "open_clip_model.safetensors").stat().st_mtime_ns
    make_stand_ins(deeper, made, said.append)
    make_stand_ins(MICRO.parts, made, said.append)
    assert ["language" in line for line in said] == [True, True]
    assert (made / "vision" / "open_clip_model.safetensors").stat().st_mtime_ns == before


def test_making_them_leaves_the_random_numbers_of_others_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    make_stand_ins(MICRO.parts, tmp_path, lambda _: None)
    assert torch.equal(torch.rand(1), expected)


def test_too_small_a_disk_is_said_before(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda _: 1)
    with pytest.raises(DiskFullError, match=r"than the 2\.6\d GB of the stand-ins"):
        make_stand_ins(MICRO.parts, tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_those_of_the_weights():
    published = REHEARSALS["opt-6.7b"].published
    assert bytes_of(published.language) == pytest.approx(13.3e9, rel=0.01)
    assert bytes_of(published.vision) == pytest.approx(1.71e9, rel=0.02)
