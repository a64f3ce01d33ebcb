"""Out of the store into the released layout and back: the same tensors and the same answers."""

import json
from functools import partial

import pytest
import released_loader
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize

from flows.recipes import opt_6_7b
from gill.decision import DecisionModel
from gill.inference.results import GeneratedImage
from gill.mapper import GillMapper, MapperSize
from gill.released_args import ReleasedError
from gill.released_checkpoint import DECISION, WEIGHTS, ReleasedCheckpoint, misfits
from gill.specs import AdapterSpec, MapperSpec
from tasks.inference import released
from tasks.inference.loading import load
from tasks.inference.released import export, import_released
from tasks.inference.released_files import write_released
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


TINY = {"hidden_dim": 16, "layers": 1, "heads": 2, "feedforward_dim": 32}


def as_the_released_code_reads(folder):
    """The tiny model; its sizes take the place of the constants of the released code."""
    return released_loader.load(folder, 32, 32, TINY, conditioning=16, decision_dim=32)


@torch.no_grad()
def test_the_released_code_computes_the_same_of_an_exported_model(exported, trained_var):
    ours, theirs = load().engine, as_the_released_code_reads(exported)
    states, adapters = ours.img_states([PROMPT, ["a dog"]]), ours.model.adapters
    inner, feature = theirs.model, torch.randn(2, 32)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)
    close(inner.gen_text_hidden_fcs[0](states, theirs.img), ours.conditioning(states))
    searched = normalize(inner.ret_text_hidden_fcs[0](states), dim=-1)
    close(searched, adapters.retrieval.embed_text(states))
    close(normalize(inner.visual_fc(feature), dim=-1), adapters.retrieval.embed_image(feature))
    tokens = inner.visual_embeddings(feature).unflatten(1, (2, -1))
    close(tokens, adapters.captioning(feature))
    close(inner.logit_scale.exp(), adapters.retrieval.scale(cap=0))
    close(theirs.img, adapters.img_tokens.weight)
    close(theirs.decision(states[:, 0]).softmax(-1), ours.decide(states))


def test_the_released_code_loads_a_model_of_its_own_sizes(tmp_path):
    spec = AdapterSpec(
        num_img_tokens=8, num_visual_tokens=4, retrieval_dim=256, vision_dim=1024, llm_dim=4096
    )
    shapes = {
        "retrieval.logit_scale": (), "captioning.linear.weight": (4 * 4096, 1024),
        "captioning.linear.bias": (4 * 4096,), "retrieval.image.weight": (256, 1024),
        "retrieval.image.bias": (256,), "retrieval.text.weight": (256, 4096),
        "retrieval.text.bias": (256,), "img_tokens.weight": (8, 4096),
    }  # fmt: skip
    size = MapperSize()
    mapper = MapperSpec(llm_dim=4096, num_img_tokens=8, num_targets=77, target_dim=768, size=size)
    with torch.device("meta"):
        wanted = GillMapper(4096, 77, 768, size).state_dict()
    checkpoint = ReleasedCheckpoint(
        spec,
        {name: torch.randn(shape, dtype=torch.bfloat16) for name, shape in shapes.items()},
        mapper,
        {name: torch.randn(value.shape, dtype=torch.bfloat16) for name, value in wanted.items()},
        DecisionModel(4096).state_dict(),
        {"opt_version": "facebook/opt-6.7b", "visual_encoder": "openai/clip-vit-large-patch14"},
    )
    assert misfits(checkpoint) == []
    write_released(tmp_path / "released", checkpoint)
    loaded = released_loader.load(tmp_path / "released")
    trained = sum(value.numel() for value in loaded.parameters()) + loaded.img.numel()
    given = [*checkpoint.adapters.values(), *checkpoint.mapper.values()]
    given += checkpoint.decision.values()
    assert trained == sum(value.numel() for value in given)
    assert torch.equal(loaded.img, checkpoint.adapters["img_tokens.weight"])
    assert torch.equal(
        loaded.model.gen_text_hidden_fcs[0].query_embs, checkpoint.mapper["query_embs"]
    )
    # The authors' model_args.json for these sizes, at kohjingyu/gill 4600b71.
    ids = list(range(50_266, 50_274))
    theirs = {
        "opt_version": "facebook/opt-6.7b", "freeze_lm": True,
        "visual_encoder": "openai/clip-vit-large-patch14", "freeze_vm": True,
        "n_visual_tokens": 4, "ret_emb_dim": 256, "gen_emb_dim": 768, "text_emb_layers": [-1],
        "text_fc_mode": "gill_mapper", "ret_text_fc_mode": "linear", "num_tokens": 8,
        "num_clip_tokens": 77, "share_ret_gen": True, "norm_image_embed": "none",
        "retrieval_token_idx": ids, "gen_token_idx": ids,
    }  # fmt: skip
    written = json.loads((tmp_path / "released" / "model_args.json").read_text())
    assert {key: written.get(key) for key in theirs} == theirs
    assert written.keys() - theirs.keys() == {"gill"}


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("model.visual_fc.bias", lambda value: value[1:]),
        ("model.gen_text_hidden_fcs.0.query_embs", lambda _: None),
        ("model.input_embeddings.weight", lambda value: value[:1]),
    ],
)
def test_the_reading_of_the_released_code_notices(exported, key, change):
    state = torch.load(exported / WEIGHTS, weights_only=True)["state_dict"]
    changed = change(state.pop(key))
    state |= {} if changed is None else {key: changed}
    torch.save({"state_dict": state}, exported / WEIGHTS)
    with pytest.raises((AssertionError, RuntimeError)):
        as_the_released_code_reads(exported)


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
