"""Before a run its frozen parts are tried: what is wrong with one is said before a stage begins."""

import shutil

import pytest
import torch
from micro_rehearsal import MICRO
from safetensors.torch import load_file, save_file

from flows.checks import check_run
from flows.cli.app import main
from flows.recipes import resolve
from flows.rehearsal.stand_ins import make_stand_ins
from tasks.parts.checks import PartError

pytestmark = pytest.mark.process  # parts are tried in a process of their own
WEIGHTS = {
    "language": "language/model.safetensors",
    "vision": "vision/open_clip_model.safetensors",
    "generator": "generator/unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "generator/text_encoder/model.safetensors",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_stand_ins(MICRO.parts, folder, str)
    return folder


@pytest.fixture
def parts(made, tmp_path, var):
    """Micro parts of every kind in folders, and the settings that name them."""
    folder = tmp_path / "parts"
    shutil.copytree(made, folder)
    own = MICRO.overrides(folder).items()
    return folder, {key: value for key, value in own if key.startswith("parts.")}


def spoil(path):
    """Infinity in every number of a file of weights."""
    save_file({name: torch.full_like(v, torch.inf) if v.is_floating_point() else v
               for name, v in load_file(path).items()}, path, {"format": "pt"})  # fmt: skip


def nothing_began(var):
    return {path.name for path in var.iterdir()} <= {"digests.json"}


def test_whole_parts_are_tried_and_nothing_is_left(parts, var):
    check_run(resolve("tiny", parts[1]), None, False)
    assert nothing_began(var)


@pytest.mark.parametrize(
    ("kind", "stage", "message"),
    [
        ("language", None, r"^parts\.language: .* makes embeddings that are not finite"),
        ("vision", "clip_features", r"^parts\.vision: .* makes features that are not finite"),
        ("generator", None, r"^parts\.generator: .* makes images that are not finite"),
        ("text_encoder", "text_targets", r"^parts\.generator: .* makes targets that are not fini"),
    ],
)
def test_each_kind_of_part_is_refused_before_a_stage_begins(parts, var, kind, stage, message):
    folder, overrides = parts
    spoil(folder / WEIGHTS[kind])
    with pytest.raises(PartError, match=message):
        check_run(resolve("tiny", overrides), stage, False)
    assert nothing_began(var)


def test_a_part_that_no_stage_of_the_run_uses_is_not_tried(parts):
    folder, overrides = parts
    spoil(folder / WEIGHTS["language"])
    check_run(resolve("tiny", overrides), "text_targets", False)


def test_the_command_says_it_in_a_line_and_starts_no_server(parts, var, capsys):
    folder, overrides = parts
    path = folder / WEIGHTS["vision"]
    path.write_bytes(path.read_bytes()[:1000])
    settings = [f"--set={key}={value}" for key, value in overrides.items()]
    assert main(["run", "clip_features", "--recipe", "tiny", *settings]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: parts.vision: ")
    assert nothing_began(var)
