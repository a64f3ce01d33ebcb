"""The fast passes equal plain ones, for several language model families; frozen stays frozen."""

import copy

import pytest
import torch
import torch.nn.functional as F
from language_families import FAMILIES, GROUPED, byte_level, micro

from gill.backbones.testing import micro_models
from gill.batches import AdapterBatch
from gill.captions import caption_oddities
from gill.losses import LossWeights, contrastive_loss, generation_loss
from gill.mapper import MapperSize, new_mapper
from gill.model import Adapters, GillModel
from gill.packing import VISUAL, caption_layout, img_layout
from gill.specs import AdapterSpec

CAPTIONS = ["a cat", "flag of france", "an old red truck, clip art", "x", "3d emoji of a tree"]


R, K = 3, 2


@pytest.fixture(params=FAMILIES)
def model(request):
    language = FAMILIES[request.param]()
    torch.manual_seed(2)
    spec = AdapterSpec(
        num_img_tokens=R, num_visual_tokens=K, retrieval_dim=8, vision_dim=6, llm_dim=language.dim
    )
    return GillModel(language, Adapters(spec, language), max_caption_tokens=40)


def mapper_for(model):
    torch.manual_seed(4)
    size = MapperSize(hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    return new_mapper(model.language.dim, R, 4, 5, size)


def batch_of(model):
    torch.manual_seed(3)
    count = len(CAPTIONS)
    return AdapterBatch(model.tokenize(CAPTIONS), torch.randn(count, 6), torch.randn(count, 4, 5))


def resized(model):
    """The plain way: the language model's own matrices grown by the [IMG] rows, all trainable."""
    language, tokens = model.language, model.adapters.img_tokens
    plain = copy.deepcopy(language.model).requires_grad_(True)
    plain.resize_token_embeddings(language.vocab_size + R, mean_resizing=False)
    with torch.no_grad():
        plain.get_input_embeddings().weight[-R:] = tokens.weight
        if not language.tied:
            plain.get_output_embeddings().weight[-R:] = tokens.output_weight
    return plain


def plain_losses(model, batch, packed, mapper):
    """Three passes of a resized model, each sequence by itself: no padding, no cache, no layout."""
    language, adapters = model.language, model.adapters
    bos = language.bos_id if language.prepends_bos else None
    llm = resized(model)
    img = list(range(language.vocab_size, language.vocab_size + R))
    width = 2 if packed else 1
    count = len(batch)
    sequences = [range(i, min(i + width, count)) for i in range(0, count, width)]

    def text(member, order):
        ids = batch.captions[member]
        return ids[1:] if order and ids[0] == bos else ids

    def run(embeds):
        out = llm(inputs_embeds=embeds[None], output_hidden_states=True)
        return out.logits[0], out.hidden_states[-1][0]

    def embed(ids):
        return llm.get_input_embeddings()(torch.tensor(ids))

    scale = language.dim**0.5 if "Gemma" in type(llm).__name__ else 1.0
    logits, labels = [], []  # captioning pass
    for members in sequences:
        pieces, wanted = [], []
        for order, member in enumerate(members):
            visual = adapters.captioning(batch.features[member][None])[0] * scale
            ids = [*text(member, order), language.eos_id]
            pieces += [visual, embed(ids)]
            wanted += [None] * K + [None if i == 0 and t == bos else t for i, t in enumerate(ids)]
        found, _ = run(torch.cat(pieces))
        kept = [i for i, label in enumerate(wanted) if label is not None]
        logits.append(found[[i - 1 for i in kept]])
        labels += [wanted[i] for i in kept]
    l_c = F.cross_entropy(torch.cat(logits), torch.tensor(labels))

    def img_pass():
        before, states = [], []
        for members in sequences:
            ids, starts = [], []
            for order, member in enumerate(members):
                ids += text(member, order)
                starts.append(len(ids))
                ids += img
            found, hidden = run(embed(ids))
            before += [found[at - 1] for at in starts]
            states += [language_states(llm, hidden)[at : at + R] for at in starts]
        return torch.stack(before), torch.stack(states)

    before, states = img_pass()  # retrieval pass
    l_p = F.cross_entropy(before, torch.full((count,), img[0]))
    maps = adapters.retrieval
    l_r = contrastive_loss(maps.embed_text(states), maps.embed_image(batch.features), maps.scale())
    _, states = img_pass()  # generation pass
    own = llm.get_input_embeddings().weight[-R:]
    l_g = generation_loss(mapper.transform(states + own), batch.targets)
    losses = {"loss": l_c + l_p + l_r + l_g, "l_c": l_c, "l_p": l_p, "l_r": l_r, "l_g": l_g}
    return losses, llm


def language_states(llm, last):
    """Hidden states as the output layer takes them: OPT-350m's are projected first."""
    project = getattr(llm.get_decoder(), "project_out", None)
    return last if project is None or last.shape[-1] == project.out_features else project(last)


@pytest.mark.parametrize("packed", [False, True])
def test_fast_losses_and_gradients_equal_three_plain_passes(model, packed):
    batch, mapper = batch_of(model), mapper_for(model)
    fast = model.losses(batch, LossWeights(), 1.0 if packed else 0.0, mapper)
    plain, llm = plain_losses(model, batch, packed, mapper)
    assert fast.keys() == plain.keys()
    for name in plain:
        assert fast[name].item() == pytest.approx(plain[name].item(), abs=1e-5), name
    trained = dict(model.adapters.named_parameters()) | {
        f"mapper.{name}": p for name, p in mapper.named_parameters()
    }
    found = dict(zip(trained, torch.autograd.grad(fast["loss"], trained.values()), strict=True))
    plain["loss"].backward()
    expected = {name: p.grad for name, p in trained.items()}
    expected["img_tokens.weight"] = llm.get_input_embeddings().weight.grad[-R:]
    if not model.language.tied:
        expected["img_tokens.output_weight"] = llm.get_output_embeddings().weight.grad[-R:]
    for name in trained:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4, msg=name)
        assert float(expected[name].abs().max()) > 0, f"{name} has no gradient: nothing compared"


def test_joint_losses_reach_the_mapper_and_the_img_tokens(model):
    mapper, batch = mapper_for(model), batch_of(model)
    alone = AdapterBatch(batch.captions, batch.features)
    joint = model.losses(batch, LossWeights(generation_weight=2.0), 0.0, mapper)
    apart = model.losses(alone, LossWeights(), 0.0)
    states, _ = model.img_pass(batch.captions, packed=False)
    l_g = generation_loss(
        mapper.transform(states + model.adapters.img_tokens.weight), batch.targets
    )
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
    captions = ["", " \n", "a caption that is far too long", "[IMG0] </s>"]
    ids = model.tokenize(captions)
    assert all(1 <= len(i) <= 5 for i in ids)
    assert ids[0] == ids[1]
    assert all(token < model.language.vocab_size for i in ids for token in i)
    states, l_p = model.img_pass(ids, packed=True)
    assert states.shape == (4, R, model.language.dim)
    assert torch.isfinite(l_p)


def test_a_pair_at_the_limit_by_hand():
    """Two captions through tokenizer and layouts: the first is cut to the limit of 4, BOS and all.

    The character tokenizer numbers a, b, c ... from 4, after pad, BOS, EOS and unknown.
    """
    language = micro_models.language_model()
    model = GillModel(
        language,
        Adapters(
            AdapterSpec(
                num_img_tokens=2, num_visual_tokens=2, retrieval_dim=8, vision_dim=6, llm_dim=32
            ),
            language,
        ),
        4,
    )
    captions = model.tokenize(["abcdef", "b"])
    assert captions == [[1, 4, 5, 6], [1, 5]]
    img = [language.vocab_size, language.vocab_size + 1]
    layout = img_layout(captions, 2, language.vocab_size, 1, packed=True)
    assert layout.prefix.tolist() == [[1, 4, 5, 6]]
    assert layout.ids.tolist() == [[*img, 5, *img]]  # all r [IMG] tokens stay, the second BOS goes
    assert layout.state_at.tolist() == [[0, 1], [3, 4]]
    assert layout.before_at.tolist() == [3, 6]  # the last token of each caption predicts [IMG0]
    layout = caption_layout(captions, 2, language.eos_id, 1, packed=True)
    visual = [VISUAL, VISUAL]
    assert layout.ids.tolist() == [[*visual, 1, 4, 5, 6, 2, *visual, 5, 2]]
    assert layout.mask.tolist() == [[1] * 11]
    assert layout.visual_at.tolist() == [0, 1, 7, 8]
    assert layout.label_at.tolist() == [2, 3, 4, 5, 8, 9]
    assert layout.labels.tolist() == [4, 5, 6, 2, 5, 2]


ODD = ["", "see [IMG0] here", "Ёж", "猫と犬", "café", "a long caption", "x"]


@pytest.mark.parametrize(("words", "unknown"), [(micro_models.tokenizer, 4), (byte_level, 0)])
def test_odd_captions_are_counted_by_reason(words, unknown):
    language = micro("Llama", tokenizer=words(), **GROUPED)
    torch.manual_seed(2)
    model = GillModel(
        language,
        Adapters(
            AdapterSpec(
                num_img_tokens=R,
                num_visual_tokens=K,
                retrieval_dim=8,
                vision_dim=6,
                llm_dim=language.dim,
            ),
            language,
        ),
        12,
    )
    assert caption_oddities(model.language, ODD, model.max_caption_tokens) == {
        "cut": 2, "empty": 1, "naming_img": 1, "other_scripts": 2, "unknown_tokens": unknown,
    }  # fmt: skip
    batch = AdapterBatch(model.tokenize(ODD), torch.randn(len(ODD), 6))
    assert all(torch.isfinite(v) for v in model.losses(batch, LossWeights(), 1.0).values())


def test_a_special_token_in_a_caption_is_text(model):
    eos = model.language.eos_id
    assert eos not in model.tokenize(["end</s>now"])[0]


def test_adapters_of_another_width_are_refused(model):
    with pytest.raises(ValueError, match="width 999"):
        Adapters(
            AdapterSpec(
                num_img_tokens=3, num_visual_tokens=2, retrieval_dim=8, vision_dim=6, llm_dim=999
            ),
            model.language,
        )


def kept_values(model, batch):
    """How many numbers the captioning pass keeps for its gradient."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, id):
        model.captioning_loss(batch, packed=True)
    return sum(kept)


def test_recomputed_activations_give_the_same_gradients(model):
    batch, trained = batch_of(model), list(model.adapters.parameters())
    plain = torch.autograd.grad(model.losses(batch, LossWeights(), 1.0)["loss"], trained)
    before = kept_values(model, batch)
    model.language.checkpoint_activations()
    assert kept_values(model, batch) < 0.4 * before
    again = torch.autograd.grad(model.losses(batch, LossWeights(), 1.0)["loss"], trained)
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_sequences_longer_than_the_language_model_takes_are_refused():
    language = micro("Llama", max_position_embeddings=64, **GROUPED)
    adapters = Adapters(
        AdapterSpec(
            num_img_tokens=R,
            num_visual_tokens=K,
            retrieval_dim=8,
            vision_dim=6,
            llm_dim=language.dim,
        ),
        language,
    )
    with pytest.raises(ValueError, match=r"max_tokens.* 84 positions.*micro Llama takes 64"):
        GillModel(language, adapters, max_caption_tokens=39)


@pytest.mark.slow
def test_the_gradient_of_a_batch_is_the_same_to_the_bit_each_time():
    """A resumed run ends like one never killed only if no step adds up in the threads' order."""
    language = micro("Llama", hidden_size=256)
    spec = AdapterSpec(
        num_img_tokens=4, num_visual_tokens=2, retrieval_dim=8, vision_dim=12, llm_dim=256
    )
    model = GillModel(language, Adapters(spec, language), 40)
    torch.manual_seed(0)
    captions = model.tokenize([f"{CAPTIONS[i % 5]} number {i}" for i in range(96)])
    batch = AdapterBatch(captions, torch.randn(96, 12), packed=True)
    parameters = [p for p in model.adapters.parameters() if p.requires_grad]
    found = []
    for _ in range(8):
        loss = model.losses(batch, LossWeights(), 1.0)["loss"]
        found.append(torch.autograd.grad(loss, parameters))
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))


@pytest.mark.parametrize(("r", "packed"), [(3, False), (3, True), (1, True)])
def test_the_released_form_of_l_p_by_hand(r, packed):
    """Mean cross-entropy over caption tokens and [IMG0], in pairs up to the first [IMG1]."""
    language = micro("Llama", tie_word_embeddings=False, **GROUPED)
    torch.manual_seed(2)
    spec = AdapterSpec(
        num_img_tokens=r, num_visual_tokens=K, retrieval_dim=8, vision_dim=6, llm_dim=language.dim
    )
    model = GillModel(language, Adapters(spec, language), max_caption_tokens=40)
    captions, tokens = model.tokenize(CAPTIONS), model.adapters.img_tokens
    img = [tokens.first_id + i for i in range(r)]
    width = 2 if packed else 1
    logits, labels = [], []
    for start in range(0, len(captions), width):
        ids = [*captions[start], *img]
        if packed and start + 1 < len(captions):
            ids += [*captions[start + 1][1:], *img]  # without its BOS
        embeddings = torch.cat(
            [tokens.weight[[i - img[0]]] if i >= img[0] else language.embed(torch.tensor([i]))
             for i in ids]
        )  # fmt: skip
        hidden, _ = language.hidden(embeddings[None], torch.ones(1, len(ids)))
        last = ids.index(img[1]) if r > 1 else len(ids)  # the first without a label
        logits.append(
            torch.cat([language.logits(hidden), tokens.logits(hidden)], dim=-1)[0, : last - 1]
        )
        labels += ids[1:last]
    expected = F.cross_entropy(torch.cat(logits), torch.tensor(labels))
    states, found = model.img_pass(captions, packed, "released")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states, model.img_pass(captions, packed)[0])
    trained = [tokens.weight, tokens.output_weight]
    for mine, other in zip(
        torch.autograd.grad(found, trained, allow_unused=True),
        torch.autograd.grad(expected, trained, allow_unused=True),
        strict=True,
    ):
        if other is None or not other.any():
            assert mine is None or not mine.any()  # nothing is predicted from an [IMG] token
        else:
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
    batch = AdapterBatch(captions, torch.randn(len(captions), 6), packed=packed)
    weights = LossWeights(img_prediction_form="released")
    assert float(model.losses(batch, weights, 0.0)["l_p"]) == pytest.approx(
        float(expected), abs=1e-5
    )
    parts = model.split(batch, float(packed), accumulate=2)
    summed = sum(f * float(model.losses(part, weights, 0.0)["l_p"]) for part, f in parts)
    assert summed == pytest.approx(float(expected), abs=1e-5)
