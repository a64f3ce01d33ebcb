"""Checkpoints that are no sound ones: each is refused with file, value and remedy, and not run."""

import json
import os
import pickle

import pytest
import torch

from gill.decision import DecisionModel
from gill.mapper import GillMapper, MapperSize
from gill.released_args import ARGS, ReleasedError
from gill.released_checkpoint import DECISION, WEIGHTS, ReleasedCheckpoint
from gill.specs import AdapterSpec, MapperSpec
from tasks.inference.released import import_released
from tasks.inference.released_files import read_released, write_released

R, DIM = 3, 768  # the width of OPT-125M, whose vocabulary all OPT models share
FC = "model.visual_fc.weight"


@pytest.fixture
def folder(tmp_path):
    """A sound checkpoint for OPT-125M, with random weights."""
    spec = AdapterSpec(
        num_img_tokens=R, num_visual_tokens=2, retrieval_dim=4, vision_dim=1024, llm_dim=DIM
    )
    shapes = {
        "retrieval.logit_scale": (), "captioning.linear.weight": (2 * DIM, 1024),
        "captioning.linear.bias": (2 * DIM,), "retrieval.image.weight": (4, 1024),
        "retrieval.image.bias": (4,), "retrieval.text.weight": (4, DIM),
        "retrieval.text.bias": (4,), "img_tokens.weight": (R, DIM),
    }  # fmt: skip
    size = MapperSize(hidden_dim=8, layers=1, heads=4, feedforward_dim=8)
    mapper = MapperSpec(llm_dim=DIM, num_img_tokens=R, num_targets=5, target_dim=6, size=size)
    checkpoint = ReleasedCheckpoint(
        spec,
        {name: torch.randn(shape) for name, shape in shapes.items()},
        mapper,
        GillMapper(DIM, 5, 6, size).state_dict(),
        DecisionModel(DIM).state_dict(),
        {
            "opt_version": "facebook/opt-125m",
            "visual_encoder": "openai/clip-vit-large-patch14",
        },
    )
    write_released(tmp_path / "released", checkpoint)
    return tmp_path / "released"


def args(change):
    def damage(folder):
        path = folder / ARGS
        described = json.loads(path.read_text())
        change(described)
        path.write_text(json.dumps(described))

    return damage


def tensors(change, name=WEIGHTS):
    def damage(folder):
        held = torch.load(folder / name, weights_only=True)
        change(held["state_dict"])
        torch.save(held, folder / name)

    return damage


def text(value, name=ARGS):
    return lambda folder: (folder / name).write_bytes(value)


class Runs:
    """A pickle that runs code when it is read."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def linked(folder):
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to("../elsewhere")


def infinite(state):
    state[FC][0, 0] = float("inf")


def nan(state):
    state["model.logit_scale"] = torch.tensor(float("nan"))


# What is done to a checkpoint, and the file, the value and the remedy that the message must name.
WRONG = {
    "no settings": (lambda f: (f / ARGS).unlink(), ["has no model_args.json", "is a folder with"]),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), ["has no pretrained_ckpt", "is a folder"]),
    "no folder": (lambda f: f.rename(f.parent / "x"), ["has no model_args.json", "released"]),
    "no JSON": (text(b"{'a': 1}"), ["model_args.json is no JSON", "line 1", "anew"]),
    "no UTF-8": (text(b"\xff\xfe{"), ["model_args.json is no JSON", "anew"]),
    "no object": (text(b"[1]"), ["model_args.json holds a list", "gill export"]),
    "deep": (text(b"[" * 100_000), ["model_args.json is no JSON", "anew"]),
    "huge": (text(b" " * (1 << 20) + b"{}"), ["model_args.json has 1,048,578 bytes", "another"]),
    "missing key": (
        args(lambda a: [a.pop(k) for k in ("num_tokens", "ret_emb_dim")]),
        ["model_args.json lacks ret_emb_dim, num_tokens", "whole file"],
    ),
    "text for a number": (
        args(lambda a: a.update(num_tokens="3")), ["num_tokens is '3'", "a whole number from 1"],
    ),
    "bool for a number": (
        args(lambda a: a.update(n_visual_tokens=True)), ["n_visual_tokens is True", "whole number"],
    ),
    "negative": (args(lambda a: a.update(ret_emb_dim=-4)), ["ret_emb_dim is -4", "from 1"]),
    "enormous": (args(lambda a: a.update(gen_emb_dim=1 << 60)), ["gen_emb_dim is", "from 1 to"]),
    "number for a name": (args(lambda a: a.update(opt_version=7)), ["opt_version is 7", "a name"]),
    "unknown mapper": (
        args(lambda a: a.update(text_fc_mode="linear")),
        ["text_fc_mode is 'linear'", "must be 'gill_mapper'"],
    ),
    "other layers": (
        args(lambda a: a.update(text_emb_layers=[-1, 6])),
        ["text_emb_layers is [-1, 6]", "must be [-1]"],
    ),
    "wrong LLM width": (
        args(lambda a: a.update(opt_version="facebook/opt-6.7b")),
        ["width 768", "'facebook/opt-6.7b', which has 4096", "set opt_version"],
    ),
    "wrong vision width": (
        tensors(lambda s: s.update({
            FC: s[FC][:, :512], "model.visual_embeddings.weight":
            s["model.visual_embeddings.weight"][:, :512],
        })),
        ["width 512", "clip-vit-large-patch14', which has 1024", "set visual_encoder"],
    ),
    "wrong vocabulary": (
        args(lambda a: a.update(retrieval_token_idx=[50257, 50258, 50259])),
        ["retrieval_token_idx is [50257, 50258, 50259]", "from 50266 on", "another vocabulary"],
    ),
    "whole embedding matrix": (
        tensors(lambda s: s.update({"model.input_embeddings.weight": torch.zeros(99, DIM)})),
        ["img_tokens.weight (99, 768) instead of (3, 768)", "prune_model_ckpt"],
    ),
    "missing tensor": (
        tensors(lambda s: s.pop("model.visual_fc.bias")),
        ["pretrained_ckpt.pth.tar does not fit", "missing: retrieval.image.bias", "both files"],
    ),
    "missing telling tensor": (
        tensors(lambda s: s.pop(FC)), ["missing: model.visual_fc.weight", "both files"],
    ),
    "extra tensor": (
        tensors(lambda s: s.update({"model.lm.head": torch.zeros(2)})),
        ["unexpected: model.lm.head", "trained tensors alone"],
    ),
    "wrong shape": (
        tensors(lambda s: s.update({"model.visual_fc.bias": torch.zeros(5)})),
        ["misshapen: retrieval.image.bias (5,) instead of (4,)", "both files"],
    ),
    "wrong dimensions": (
        tensors(lambda s: s.update({FC: torch.zeros(4)})), ["visual_fc.weight (4,) instead of 2"],
    ),
    "infinity": (tensors(infinite), [f"{WEIGHTS}: {FC} holds NaN or infinity", "another checkp"]),
    "NaN": (tensors(nan), ["model.logit_scale holds NaN", "another checkpoint"]),
    "whole numbers": (
        tensors(lambda s: s.update({FC: s[FC].long()})),
        [f"{FC} holds torch.int64", "save it as float32"],
    ),
    "double": (
        tensors(lambda s: s.update({FC: s[FC].double()})), ["torch.float64", "save it as float32"],
    ),
    "no tensor": (tensors(lambda s: s.update({FC: 3})), [f"'{FC}' is a int", "tensors alone"]),
    "no state": (
        lambda f: torch.save({"model": {}}, f / WEIGHTS), ["has no 'state_dict'", "save {"],
    ),
    "a list": (
        lambda f: torch.save({"state_dict": [1]}, f / WEIGHTS), ["holds no tensors", "save a"],
    ),
    "cut": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-900]),
        ["pretrained_ckpt.pth.tar cannot be read", "bytes)", "copy it again"],
    ),
    "empty": (text(b"", WEIGHTS), ["pretrained_ckpt.pth.tar", "0 bytes", "copy it again"]),
    "junk": (text(b"junk" * 99, WEIGHTS), ["pretrained_ckpt.pth.tar", "Save {|copy it again"]),
    "code": (
        lambda f: torch.save({"state_dict": {FC: Runs()}}, f / WEIGHTS),
        ["holds more than tensors and was not read", "mkdir", "Save {'state_dict'"],
    ),
    "code in a plain pickle": (
        text(pickle.dumps(Runs()), DECISION), ["decision_model.pth.tar holds more than", "Save {"],
    ),
    "a link out": (linked, ["is a link to", "elsewhere, outside its folder", "copy the file"]),
    "a dangling link": (
        lambda f: ((f / DECISION).unlink(), (f / DECISION).symlink_to("/nowhere")),
        ["decision_model.pth.tar is a link to /nowhere", "copy the file"],
    ),
    "a folder": (
        lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), ["is no file", "put the checkp"],
    ),
    "a path for a name": (
        args(lambda a: a.update(opt_version="../../etc")), ["'../../etc'", "your folders"],
    ),
    "decision of other shape": (
        tensors(lambda s: s.update({"1.weight": torch.zeros(2, 99)}), DECISION),
        ["decision_model.pth.tar holds", "(2, 99)", "width 768", "leave the file out"],
    ),
    "heads that do not divide": (
        args(lambda a: a["gill"].update(mapper_heads=3)), ["'heads': 3", "must divide", "another"],
    ),
}  # fmt: skip


def test_a_sound_one_is_taken(folder, var):
    assert [made.stage for made in import_released(folder)] == ["adapters", "mapper", "decision"]


@pytest.mark.parametrize("kind", WRONG)
def test_each_kind_of_damage_is_named_with_its_remedy(folder, var, monkeypatch, kind):
    damage, said = WRONG[kind]
    damage(folder)
    monkeypatch.chdir(var)
    with pytest.raises(ReleasedError) as caught:
        import_released(folder)
    for part in said:
        assert any(one in str(caught.value) for one in part.split("|")), str(caught.value)
    assert list(var.iterdir()) == []  # nothing was stored, and no code has run


def test_without_a_decision_model_there_is_none(folder):
    (folder / DECISION).unlink()
    assert read_released(folder).decision is None
