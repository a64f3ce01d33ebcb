"""The released layout: a random checkpoint acts the same through plain torch and through ours."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gill.backbones.testing import micro_models
from gill.decision import DecisionModel
from gill.mapper import GillMapper, MapperSize
from gill.model import Adapters
from gill.released_args import ReleasedError
from gill.released_checkpoint import (
    CheckpointMismatchError,
    ReleasedCheckpoint,
    from_released,
    misfits,
    to_released,
)
from gill.specs import AdapterSpec, MapperSpec

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
def released(plain):
    """What the three files hold."""
    state = {"model.logit_scale": plain["scale"], "model.input_embeddings.weight": plain["img"]}
    names = {"w_cap": "model.visual_embeddings", "w_i2t": "model.visual_fc",
             "w_t2i": "model.ret_text_hidden_fcs.0.model", "fc": "model.gen_text_hidden_fcs.0.fc",
             "tfm": "model.gen_text_hidden_fcs.0.tfm",
             "out": "model.gen_text_hidden_fcs.0.model"}  # fmt: skip
    for part, prefix in names.items():
        state |= {f"{prefix}.{k}": v for k, v in plain[part].state_dict().items()}
    state["model.gen_text_hidden_fcs.0.query_embs"] = plain["query"]
    state = {(f"module.{k}" if i % 2 else k): v for i, (k, v) in enumerate(state.items())}
    args = {"opt_version": "facebook/opt-micro", "visual_encoder": "openai/clip-micro",
            "n_visual_tokens": K, "ret_emb_dim": RET, "gen_emb_dim": WIDTH, "num_tokens": R,
            "num_clip_tokens": TOKENS, "text_emb_layers": [-1]}  # fmt: skip
    return args, state, plain["decision"].state_dict()


def test_a_released_checkpoint_acts_the_same_here(plain, released):
    read = from_released(*released)
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


def test_writing_and_reading_again_changes_nothing(released):
    read = from_released(*released)
    again = from_released(*to_released(read))
    assert again.adapter_spec == read.adapter_spec
    assert again.mapper_spec == read.mapper_spec
    assert again.args["opt_version"] == "facebook/opt-micro"
    for part in ("adapters", "mapper", "decision"):
        one, other = getattr(read, part), getattr(again, part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_every_tensor_that_does_not_fit_is_listed(released):
    args, state, decision = released
    del state[next(k for k in state if k.endswith("logit_scale"))]
    state["model.surprise"] = torch.zeros(2)
    state[next(k for k in state if k.endswith("visual_fc.bias"))] = torch.zeros(RET + 1)
    with pytest.raises(CheckpointMismatchError) as caught:
        from_released(args, state, decision)
    message = str(caught.value)
    assert "missing: retrieval.logit_scale" in message
    assert "unexpected: model.surprise" in message
    assert "retrieval.image.bias (9,) instead of (8,)" in message
    assert "prune_model_ckpt" in message


def test_what_is_written_has_every_key_that_the_released_loader_reads(released):
    """``load_gill`` and ``GILLModel`` of kohjingyu/gill, and no field that a namedtuple refuses."""
    args, state, _ = to_released(from_released(*released))
    read = {
        "opt_version", "visual_encoder", "n_visual_tokens", "freeze_lm", "freeze_vm", "num_tokens",
        "num_clip_tokens", "text_emb_layers", "ret_emb_dim", "gen_emb_dim", "text_fc_mode",
        "ret_text_fc_mode", "share_ret_gen",
    }  # fmt: skip
    assert read <= args.keys()
    assert all(key.isidentifier() and not key.startswith("_") for key in args)
    assert not any(key.startswith("module.") for key in state)


def test_why_the_released_code_cannot_load_a_model_is_told_whole(released):
    said = " ".join(misfits(from_released(*released)))
    for part in ("opt-micro", "feedforward_dim is 64, not 2048", "width 12, not 768",
                 "decision model reads width 32, not 4096"):  # fmt: skip
        assert part in said


def test_a_model_of_the_authors_sizes_fits():
    size = MapperSize()
    with torch.device("meta"):
        mapper = GillMapper(4096, 77, 768, size)
    spec = AdapterSpec(vision_dim=1024, llm_dim=4096)
    checkpoint = ReleasedCheckpoint(
        spec, {}, MapperSpec(llm_dim=4096, num_img_tokens=8, num_targets=77, target_dim=768,
                             size=size), dict(mapper.state_dict()), None,
        {"opt_version": "facebook/opt-6.7b", "visual_encoder": "openai/clip-vit-large-patch14"},
    )  # fmt: skip
    assert misfits(checkpoint) == []


@pytest.mark.parametrize("kind", ["linear", "mlp", "encoder"])
def test_another_kind_of_mapper_has_no_place(released, kind):
    read = from_released(*released)
    size = read.mapper_spec.size.model_copy(update={"kind": kind})
    other = replace(read, mapper_spec=read.mapper_spec.model_copy(update={"size": size}))
    with pytest.raises(ReleasedError, match=f"kind is '{kind}'.*mapper.kind=gill"):
        to_released(other)


def test_output_rows_of_their_own_have_no_place(released):
    read = from_released(*released)
    read.adapters["img_tokens.output_weight"] = read.adapters["img_tokens.weight"]
    with pytest.raises(ReleasedError, match="untied"):
        to_released(read)
