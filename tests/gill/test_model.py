"""The fast passes equal plain ones, for several language model families; frozen stays frozen."""

import pytest
import torch

from gill.backbones import tiny
from gill.backbones.language import LanguageModel
from gill.losses import contrastive_loss, generation_loss, token_loss
from gill.mapper import MapperSize, new_mapper
from gill.model import AdapterBatch, Adapters, GillModel, LossWeights
from gill.packing import caption_layout, img_layout
from gill.specs import AdapterSpec

CAPTIONS = ["a cat", "flag of france", "an old red truck, clip art", "x", "3d emoji of a tree"]


FAMILIES = {
    "opt": tiny.language_model,
    "llama-tied": lambda: tiny.llama_model(True),
    "llama-untied": lambda: tiny.llama_model(False),
}


@pytest.fixture(params=FAMILIES)
def model(request):
    language = FAMILIES[request.param]()
    torch.manual_seed(2)
    spec = AdapterSpec(3, 2, 8, vision_dim=6, llm_dim=language.dim)
    return GillModel(language, Adapters(spec, language), max_caption_tokens=40)


def batch_of(model):
    torch.manual_seed(3)
    return AdapterBatch(model.tokenize(CAPTIONS), torch.randn(len(CAPTIONS), 6))


def plain_losses(model, batch, packed):
    """One pass over each whole sequence, logits everywhere, nothing cached."""
    language, adapters = model.language, model.adapters
    bos = language.bos_id if language.prepends_bos else None

    def run(ids, mask, visual=None, at=None):
        out = torch.zeros(*ids.shape, language.dim)
        for row, column in torch.cartesian_prod(*map(torch.arange, ids.shape)).tolist():
            token = int(ids[row, column])
            if token >= language.vocab_size:
                out[row, column] = adapters.img_tokens.weight[token - language.vocab_size]
            elif token >= 0:
                out[row, column] = language.embedding.weight[token]
        if visual is not None:
            out = out.flatten(0, 1).index_copy(0, at, visual).view_as(out)
        return language.hidden(out, mask)[0].flatten(0, 1)

    layout = caption_layout(batch.captions, 2, language.eos_id, bos, packed)
    visual = adapters.captioning(batch.features).flatten(0, 1)
    hidden = run(layout.ids, layout.mask, visual, layout.visual_at)
    logits, img = language.logits(hidden), adapters.img_tokens.logits(hidden)
    l_c = token_loss(logits[layout.label_at], img[layout.label_at], layout.labels)

    layout = img_layout(batch.captions, 3, language.vocab_size, bos, packed)
    ids = torch.cat([layout.prefix, layout.ids], 1)
    hidden = run(ids, torch.cat([layout.prefix_mask, layout.mask], 1))
    before = hidden[layout.before_at]
    first = torch.full((len(before),), language.vocab_size)
    l_p = token_loss(language.logits(before), adapters.img_tokens.logits(before), first)
    row, column = layout.state_at // layout.ids.shape[1], layout.state_at % layout.ids.shape[1]
    states = hidden[row * ids.shape[1] + layout.prefix.shape[1] + column]
    maps = adapters.retrieval
    l_r = contrastive_loss(maps.embed_text(states), maps.embed_image(batch.features), maps.scale())
    return {"loss": l_c + l_p + l_r, "l_c": l_c, "l_p": l_p, "l_r": l_r}


@pytest.mark.parametrize("packed", [False, True])
def test_fast_losses_and_gradients_equal_plain_ones(model, packed):
    batch = batch_of(model)
    fast = model.losses(batch, LossWeights(), packing_probability=1.0 if packed else 0.0)
    plain = plain_losses(model, batch, packed)
    for name in plain:
        assert fast[name].item() == pytest.approx(plain[name].item(), abs=1e-5), name
    trained = dict(model.adapters.named_parameters())
    fast_grads = torch.autograd.grad(fast["loss"], trained.values())
    plain_grads = torch.autograd.grad(plain["loss"], trained.values())
    for name, a, b in zip(trained, fast_grads, plain_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=name)
        assert float(b.abs().max()) > 0, f"{name} has no gradient, so nothing was compared"


def test_joint_losses_reach_the_mapper_and_the_img_tokens(model):
    torch.manual_seed(4)
    size = MapperSize(hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    mapper = new_mapper(model.language.dim, 3, 4, 5, size)
    alone = batch_of(model)
    batch = AdapterBatch(alone.captions, alone.features, torch.randn(len(alone), 4, 5))
    joint = model.losses(batch, LossWeights(generation=2.0), 0.0, mapper)
    apart = model.losses(alone, LossWeights(), 0.0)
    states, _ = model.img_pass(batch.captions, packed=False)
    l_g = generation_loss(mapper(states + model.adapters.img_tokens.weight), batch.targets)
    assert joint["l_g"].item() == pytest.approx(l_g.item(), abs=1e-5)
    expected = apart["loss"].item() + 2 * l_g.item()
    assert joint["loss"].item() == pytest.approx(expected, abs=1e-4)
    wanted = [model.adapters.img_tokens.weight, mapper.query_embs]
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(joint["l_g"], wanted))
    with pytest.raises(ValueError, match="no targets"):
        model.losses(alone, LossWeights(), 0.0, mapper)


def test_cached_states_equal_the_training_pass(model):
    batch = batch_of(model)
    states, _ = model.img_pass(batch.captions, packed=False)
    torch.testing.assert_close(model.img_states(batch.captions), states, atol=1e-5, rtol=1e-5)


def test_states_do_not_depend_on_the_batch(model):
    ids = model.tokenize(CAPTIONS)
    together = model.img_states(ids)
    for row, caption in enumerate(ids):
        alone = model.img_states([caption])[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-5)


def test_the_language_model_gets_no_gradient_and_does_not_change(model):
    before = {k: v.clone() for k, v in model.language.state_dict().items()}
    model.losses(batch_of(model), LossWeights(), 0.5)["loss"].backward()
    assert all(p.grad is None for p in model.language.parameters())
    after = model.language.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_img_tokens_are_kept_at_the_mean_norm(model):
    tokens = model.adapters.img_tokens
    mean = model.language.embedding.weight.norm(dim=-1).mean()
    with torch.no_grad():
        tokens.weight.mul_(torch.tensor([[0.1], [1.0], [30.0]]))
    tokens.rescale()
    torch.testing.assert_close(tokens.weight.norm(dim=-1), mean.expand(3))


def test_captions_are_cut_and_never_empty(model):
    model.max_caption_tokens = 5
    ids = model.tokenize(["", "a caption that is far too long", "[IMG0] </s>"])
    assert all(1 <= len(i) <= 5 for i in ids)
    assert all(token < model.language.vocab_size for i in ids for token in i)


def test_a_special_token_in_a_caption_is_text(model):
    eos = model.language.eos_id
    assert eos not in model.tokenize(["end</s>now"])[0]


def test_adapters_of_another_width_are_refused(model):
    with pytest.raises(ValueError, match="width 999"):
        Adapters(AdapterSpec(3, 2, 8, 6, 999), model.language)


def test_an_encoder_decoder_is_refused_by_name():
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    with pytest.raises(ValueError, match=r"my-t5.*encoder-decoder"):
        LanguageModel(t5, tiny.tokenizer(), "my-t5")
