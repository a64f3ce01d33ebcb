"""The released layout: a random checkpoint acts the same through plain torch and through ours."""

import json

import pytest
import torch
from torch import nn

from gill.backbones.testing import micro_models
from gill.decision import DecisionModel
from gill.mapper import GillMapper
from gill.model import Adapters
from gill.released_checkpoint import (
    ARGS,
    DECISION,
    WEIGHTS,
    CheckpointMismatchError,
    read_released,
    write_released,
)

DIM, VISION, R, K, RET, TOKENS, WIDTH = 32, 10, 3, 2, 8, 5, 12


@pytest.fixture
def plain():
    """The parts as the released code builds them, from torch's own modules."""
    torch.manual_seed(0)
    return {
        "w_cap": nn.Linear(VISION, K * DIM),
        "w_i2t": nn.Linear(VISION, RET),
        "w_t2i": nn.Linear(DIM, RET),
        "fc": nn.Linear(DIM, 512),
        "tfm": nn.Transformer(
            batch_first=True, norm_first=True, d_model=512, num_encoder_layers=4,
            num_decoder_layers=4, dim_feedforward=64, dropout=0.0, nhead=4,
        ),
        "query": torch.randn(1, TOKENS, 512),
        "out": nn.Linear(512, WIDTH),
        "img": torch.randn(R, DIM),
        "scale": torch.tensor(3.0),
        "decision": nn.Sequential(nn.Dropout(0.5), nn.Linear(DIM, 2)),
    }  # fmt: skip


@pytest.fixture
def folder(plain, tmp_path):
    state = {"model.logit_scale": plain["scale"], "model.input_embeddings.weight": plain["img"]}
    names = {"w_cap": "model.visual_embeddings", "w_i2t": "model.visual_fc",
             "w_t2i": "model.ret_text_hidden_fcs.0.model", "fc": "model.gen_text_hidden_fcs.0.fc",
             "tfm": "model.gen_text_hidden_fcs.0.tfm",
             "out": "model.gen_text_hidden_fcs.0.model"}  # fmt: skip
    for part, prefix in names.items():
        state |= {f"{prefix}.{k}": v for k, v in plain[part].state_dict().items()}
    state["model.gen_text_hidden_fcs.0.query_embs"] = plain["query"]
    state = {(f"module.{k}" if i % 2 else k): v for i, (k, v) in enumerate(state.items())}
    torch.save({"state_dict": state}, tmp_path / WEIGHTS)
    torch.save({"state_dict": plain["decision"].state_dict()}, tmp_path / DECISION)
    args = {"opt_version": "facebook/opt-6.7b", "visual_encoder": "openai/clip-vit-large-patch14",
            "n_visual_tokens": K, "ret_emb_dim": RET, "gen_emb_dim": WIDTH, "num_tokens": R,
            "num_clip_tokens": TOKENS, "text_emb_layers": [-1]}  # fmt: skip
    (tmp_path / ARGS).write_text(json.dumps(args))
    return tmp_path


def test_a_released_checkpoint_acts_the_same_here(plain, folder):
    read = read_released(folder)
    language = micro_models.language_model()
    adapters = Adapters(read.adapter_spec, language)
    adapters.load_state_dict(read.adapters)
    mapper = GillMapper(DIM, TOKENS, WIDTH, read.mapper_spec.size)
    mapper.load_state_dict(read.mapper)
    decision = DecisionModel(DIM).eval()
    decision.load_state_dict(read.decision)
    feature, states = torch.randn(4, VISION), torch.randn(4, R, DIM)
    with torch.no_grad():
        expected = plain["w_cap"](feature).reshape(4, K, DIM)
        torch.testing.assert_close(adapters.captioning(feature), expected)
        mapped = plain["w_t2i"](states)[:, 0]
        expected = mapped / mapped.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(adapters.retrieval.embed_text(states), expected)
        mapped = plain["w_i2t"](feature)
        expected = mapped / mapped.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(adapters.retrieval.embed_image(feature), expected)
        torch.testing.assert_close(adapters.retrieval.scale(), plain["scale"].exp())
        x = states + plain["img"]
        expected = plain["out"](plain["tfm"](plain["fc"](x), plain["query"].repeat(4, 1, 1)))
        torch.testing.assert_close(mapper(states, adapters.img_tokens.weight), expected,
                                   atol=1e-5, rtol=1e-5)  # fmt: skip
        torch.testing.assert_close(decision(states), plain["decision"].eval()(states[:, 0]))


def test_writing_and_reading_again_changes_nothing(folder, tmp_path):
    read = read_released(folder)
    write_released(tmp_path / "again", read)
    again = read_released(tmp_path / "again")
    assert again.adapter_spec == read.adapter_spec
    assert again.mapper_spec == read.mapper_spec
    assert again.args["opt_version"] == "facebook/opt-6.7b"
    for part in ("adapters", "mapper", "decision"):
        one, other = getattr(read, part), getattr(again, part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_every_tensor_that_does_not_fit_is_listed(folder):
    state = torch.load(folder / WEIGHTS, weights_only=True)["state_dict"]
    del state["model.logit_scale"]
    state["model.surprise"] = torch.zeros(2)
    name = next(k for k in state if k.endswith("visual_fc.bias"))
    state[name] = torch.zeros(RET + 1)
    torch.save({"state_dict": state}, folder / WEIGHTS)
    with pytest.raises(CheckpointMismatchError) as caught:
        read_released(folder)
    message = str(caught.value)
    assert "missing: retrieval.logit_scale" in message
    assert "unexpected: model.surprise" in message
    assert "retrieval.image.bias (9,) instead of (8,)" in message
