"""Out of the store into the released layout and back: the same tensors and the same answers."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flows.recipes import opt_6_7b
from gill.inference.results import GeneratedImage
from gill.released_args import ReleasedError
from gill.released_checkpoint import DECISION, WEIGHTS
from tasks.inference import released
from tasks.inference.loading import load
from tasks.inference.released import export, import_released
from tasks.runner.housekeeping import damage, needed, pinned, stored
from tasks.runner.store import name_of

PROMPT = ["a red apple", Image.new("RGB", (50, 40), "green"), "like this"]


@pytest.fixture
def exported(trained_var, tmp_path):
    """The tiny model in the released layout."""
    folder = tmp_path / "released"
    export(None, folder, anyway=True)
    return folder


def answered(loaded):
    settings = {"image_bias": 1e9, "max_new_tokens": 3, "choice": "generate"}
    return loaded.engine.generate(PROMPT, **settings)


def images(answer):
    return [segment.image for segment in answer if isinstance(segment, GeneratedImage)]


def test_exported_and_imported_again_is_the_same_model(
    exported, trained_var, tmp_path, monkeypatch
):
    first = load()
    monkeypatch.setenv("GILL_VAR", str(tmp_path / "elsewhere"))
    made = import_released(exported)
    assert [artifact.stage for artifact in made] == ["adapters", "mapper", "decision"]
    stages = json.loads((trained_var / "last_run.json").read_text())["stages"]
    for artifact in made:
        (weights,) = artifact.path.glob("*.safetensors")
        one = load_file(weights)
        other = load_file(
            trained_var / "store" / artifact.stage / stages[artifact.stage]["fingerprint"]
            / weights.name
        )  # fmt: skip
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    for again in (load(made[-1].path), load(exported)):
        states = again.engine.img_states([PROMPT])
        assert torch.equal(states, first.engine.img_states([PROMPT]))
        assert torch.equal(again.engine.decide(states), first.engine.decide(states))
        found, expected = images(answered(again)), images(answered(first))
        assert len(found) == len(expected) > 0
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_is_imported_is_kept_whole_and_once(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("GILL_VAR", str(tmp_path / "elsewhere"))
    made = import_released(exported)
    assert import_released(exported) == made
    assert pinned() == [name_of(made[-1])]
    found = stored()
    assert len(found) == 3
    assert {name_of(artifact) for artifact in made} == needed(found, unfinished=False).keys()
    assert all(damage(one) == {} for one in found)


def test_files_are_plain_tensors(exported):
    for name in (WEIGHTS, DECISION):
        state = torch.load(exported / name, weights_only=True)
        assert state.keys() == {"state_dict"}
        assert all(type(value) is torch.Tensor for value in state["state_dict"].values())


def test_what_the_released_code_cannot_load_is_refused_with_every_reason(trained_var, tmp_path):
    with pytest.raises(ReleasedError) as caught:
        export(None, tmp_path / "new")
    for part in ("language model is tiny", "encoder is tiny", "generator is tiny", "--anyway"):
        assert part in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_the_parts_of_the_paper_recipe_are_those_of_the_released_code(exported, monkeypatch):
    """Only sizes speak against it then: those of a tiny model."""
    monkeypatch.setattr(released, "recorded_parts", lambda _: opt_6_7b().parts)
    with pytest.raises(ReleasedError) as caught:
        export(None, exported.parent / "other")
    for part in ("language model is", "encoder is", "image generator is"):
        assert part not in str(caught.value)
    assert "its mapper's hidden_dim is" in str(caught.value)


def test_a_folder_that_holds_something_is_not_written_over(trained_var, exported):
    before = {path: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(ReleasedError, match="holds something"):
        export(None, exported, anyway=True)
    assert {path: path.read_bytes() for path in exported.iterdir()} == before


@pytest.mark.parametrize("name", ["/etc/passwd", "local-dir:/root/x", "../x", "~/x"])
def test_a_checkpoint_may_not_name_folders(exported, var, name):
    path = exported / "model_args.json"
    args = json.loads(path.read_text())
    args["gill"]["parts"]["language"]["name"] = name
    path.write_text(json.dumps(args))
    with pytest.raises(ReleasedError, match="may not name your folders"):
        import_released(exported)
    assert not (var / "store").exists()
