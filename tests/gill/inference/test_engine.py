"""The semantics of inference on scripted parts; cached decoding against plain on tiny parts."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from micro_engine import R, build, flat_image, plain_embeddings
from torch import nn

from gill.backbones.language_checks import Abilities
from gill.backbones.testing import micro_models
from gill.inference.decoding import decode
from gill.inference.engine import GillEngine
from gill.inference.index import Index
from gill.inference.prompts import ImgTokens, PromptError
from gill.inference.results import Decision, GeneratedImage, RetrievedImage, Text
from gill.inference.settings import Settings
from gill.mapper import MapperSize, new_mapper


@pytest.fixture(params=["opt", "llama"])
def engine(request):
    return build(
        micro_models.language_model()
        if request.param == "opt"
        else micro_models.llama_model(tied=False)
    )


PROMPTS = [
    ["a cat", flat_image(30), "and a dog,"],
    [flat_image(200)],
    "x",
    [flat_image(90), "the same in red", ImgTokens(), "now a longer text about this image: "],
]


# --- a plain decoder: the whole sequence again for every token, one prompt at a time


def plain_decode(engine, items, count, bias, max_images):
    language, img = engine.model.language, engine.model.adapters.img_tokens
    sequence = plain_embeddings(engine, items)
    tokens, states = [], []
    for _ in range(count):
        last = language.hidden(sequence[None], torch.ones(1, len(sequence)).long())[0][0, -1]
        logits = torch.cat([language.logits(last), img.logits(last)[:1] + bias])
        if len(states) == max_images:
            logits[-1] = -math.inf
        token = int(logits.argmax())
        if token == language.eos_id:
            break
        tokens.append(token)
        if token == language.vocab_size:
            sequence = torch.cat([sequence, img.weight])
            hidden = language.hidden(sequence[None], torch.ones(1, len(sequence)).long())[0]
            states.append(hidden[0, -R:])
        else:
            sequence = torch.cat([sequence, language.embedding.weight[token][None]])
    return tokens, states


@torch.no_grad()
def halfway_bias(engine):
    """A bias of [IMG0] at which the prompts answer with text and with images."""
    language, img = engine.model.language, engine.model.adapters.img_tokens
    gaps = []
    for prompt in PROMPTS:
        x = plain_embeddings(engine, prompt)
        last = language.hidden(x[None], torch.ones(1, len(x)).long())[0][0, -1]
        gaps.append(float(language.logits(last).max() - img.logits(last)[0]))
    return sorted(gaps)[1] + 1e-3


@torch.no_grad()
def test_cached_batches_equal_a_plain_decoder(engine):
    bias = halfway_bias(engine)
    settings = Settings(max_new_tokens=9, image_bias=bias, max_images=2)
    embeddings, mask = engine.reader.prepare(PROMPTS, room=settings.room(R))
    seen = decode(engine.model, embeddings, mask, settings, [0] * len(PROMPTS))
    kinds = set()
    for prompt, answer in zip(PROMPTS, seen, strict=True):
        tokens, states = plain_decode(engine, prompt, 9, bias, 2)
        assert answer.tokens == tokens
        assert len(answer.states) == len(states)
        kinds |= {len(states), len(tokens) - len(states)}
        for cached, plain in zip(answer.states, states, strict=True):
            torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)
    assert len(kinds) > 1, "text and images must both occur for this to compare anything"


@torch.no_grad()
def test_img_states_equal_a_plain_pass(engine):
    states = engine.img_states(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        items = [prompt] if isinstance(prompt, str) else prompt
        x = plain_embeddings(engine, [*items, ImgTokens()])
        plain = engine.model.language.hidden(x[None], torch.ones(1, len(x)).long())[0][0, -R:]
        torch.testing.assert_close(states[row], plain, atol=1e-5, rtol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(engine):
    changes = {"max_new_tokens": 8, "image_bias": halfway_bias(engine), "temperature": 1.0,
               "top_p": 0.9, "num_images": 2}  # fmt: skip
    together = engine.generate_batch(PROMPTS, seeds=[3, 4, 5, 6], **changes)
    for prompt, seed, expected in zip(PROMPTS, [3, 4, 5, 6], together, strict=True):
        same(engine.generate(prompt, seed=seed, **changes), expected)
    again = engine.generate_batch(PROMPTS, seeds=[3, 4, 5, 6], **changes)
    for a, b in zip(together, again, strict=True):
        same(a, b)
    other = engine.generate_batch(PROMPTS, seeds=[7, 8, 9, 10], **changes)
    assert [texts(a) for a in other] != [texts(a) for a in together]


def texts(segments):
    return [s.text.replace(" ", "") for s in segments if isinstance(s, Text)]


def same(a, b):
    assert [type(s) for s in a] == [type(s) for s in b]
    for x, y in zip(a, b, strict=True):
        if isinstance(x, GeneratedImage):
            assert x.seed == y.seed
            torch.testing.assert_close(x.image, y.image, atol=1e-4, rtol=1e-4)
        elif isinstance(x, RetrievedImage):
            assert x.key == y.key
        elif isinstance(x, Text):
            assert x == y


# --- the semantics, on a language model that says what it is told


class Scripted(nn.Module):
    """Says the next letter of its row's script; "*" is [IMG0], "." ends. Counts real positions."""

    def __init__(self, scripts, prompt_length):
        super().__init__()
        self.words = micro_models.tokenizer()
        self.scripts, self.start = scripts, prompt_length
        self.vocab_size, self.eos_id, self.bos_id, self.prepends_bos = len(self.words), 2, 1, False
        self.dim, self.tied, self.name, self.max_positions = self.vocab_size + 1, True, "script", 64
        self.embedding = nn.Embedding(self.vocab_size, self.dim)
        self.tokenizer, self.dtype, self.device = self.words, torch.float32, torch.device("cpu")
        self.embed_scale, self.fed, self.abilities = 1.0, [], Abilities()

    def cap(self, logits):
        return logits

    def tokenize(self, texts, limit):
        return [self.words(t, add_special_tokens=False)["input_ids"][:limit] for t in texts]

    def embed(self, ids):
        return self.embedding(ids)

    def logits(self, hidden):
        return hidden[..., : self.vocab_size]

    def before_head(self, hidden):
        return hidden

    def hidden(self, embeddings, mask, past=None, use_cache=False):
        new = mask[:, -embeddings.shape[1] :].bool()
        self.fed.append(new.sum(-1).tolist())
        out = torch.zeros(*embeddings.shape[:2], self.dim)
        said = past or [[0, 0] for _ in mask]  # letters, and [IMG] tokens that were read
        shown = (embeddings[..., -1] == 1) & new  # their embeddings, which no letter has
        for row, script in enumerate(self.scripts):
            said[row][1] += int(shown[row].sum())
            inside = bool(shown[row, -1]) and said[row][1] % R
            if said[row][0] < len(script) and self.fed[-1][row] and not inside:
                letter = script[said[row][0]]
                at = {"*": self.vocab_size, ".": 2}.get(letter) or self.tokenize([letter], 1)[0][0]
                out[row, -1, at] = 10.0
                said[row][0] += 1
        return out, said


def scripted(*scripts, **options):
    engine = build(Scripted(scripts, 1), **options)
    img = engine.model.adapters.img_tokens
    with torch.no_grad():  # [IMG0]'s logit is the last value of a state
        img.weight.copy_(F.one_hot(torch.tensor([img.first_id] * R), img.first_id + 1))
    return engine


def kinds(segments):
    return [type(s).__name__ for s in segments]


def test_segments_come_in_order_and_img0_forces_the_rest():
    engine = scripted("ab*cd*.", index=False)
    answer = engine.generate("x")
    assert kinds(answer) == ["Text", "Decision", "GeneratedImage"] * 2
    assert texts(answer) == ["ab", "cd"]
    fed = [row[0] for row in engine.model.language.fed]
    assert fed == [1, 1, 1, R, 1, 1, R], "one token each time, r after [IMG0]"


def test_rows_that_show_an_image_do_not_disturb_the_others():
    engine = scripted("a*b.", "cdef.", "*.", index=False)
    answers = engine.generate_batch(["x", "x", "x"])
    assert [texts(a) for a in answers] == [["a", "b"], ["cdef"], []]
    assert [kinds(a).count("GeneratedImage") for a in answers] == [1, 0, 1]


def test_no_index_means_always_generate():
    engine = scripted("*.", index=False)
    decide_always(engine, "retrieve")
    decision, image = engine.generate("x")
    assert (decision.choice, decision.reason) == ("generate", "no index")
    assert decision.probabilities["retrieve"] > 0.99
    assert isinstance(image, GeneratedImage)
    assert image.image.shape == (3, 16, 16)
    with pytest.raises(ValueError, match="no index"):
        engine.generate("x", choice="retrieve")


def decide_always(engine, choice):
    with torch.no_grad():
        engine.decision.linear.weight.zero_()
        engine.decision.linear.bias.copy_(
            torch.tensor([9.0, 0] if choice == "generate" else [0, 9])
        )


def test_the_decision_model_chooses():
    engine = scripted("*.")
    for choice, kind in (("generate", GeneratedImage), ("retrieve", RetrievedImage)):
        decide_always(engine, choice)
        decision, image = engine.generate("x")
        assert (decision.choice, decision.reason) == (choice, "decision model")
        assert decision.probabilities[choice] == pytest.approx(1 / (1 + math.exp(-9)))
        assert isinstance(image, kind)
        other = {"generate": "retrieve", "retrieve": "generate"}[choice]
        assert engine.generate("x", choice=other)[0] == Decision(
            other, decision.probabilities, "asked for"
        )
    engine.decision = None
    assert engine.generate("x")[0] == Decision("generate", None, "no decision model")


def test_no_image_is_shown_twice_in_an_answer():
    engine = scripted("*a*b*.", "*.")
    decide_always(engine, "retrieve")
    long, short = engine.generate_batch(["x", "x"], without=[(), ("a",)])
    vector = engine.model.adapters.retrieval.embed_text(gill_states(engine)).detach()
    order = (engine.index.vectors @ vector[0]).argsort(descending=True).tolist()
    ranked = ["abcde"[i] for i in order]
    shown = [s for s in long if isinstance(s, RetrievedImage)]
    assert len({s.key for s in shown}) == 3
    assert [s.origin for s in shown] == [f"image_store/{s.key}" for s in shown]
    assert shown[0].key == ranked[0]
    assert shown[0].score == pytest.approx(
        float((engine.index.vectors @ vector[0]).max()), abs=1e-5
    )
    best_allowed = next(key for key in ranked if key != "a")
    assert [s.key for s in short if isinstance(s, RetrievedImage)] == [best_allowed]


def gill_states(engine):
    """The scripted [IMG] states: the last says the next letter, the first is empty."""
    return torch.zeros(1, R, engine.model.language.dim)


def test_an_index_that_is_used_up_gives_way_to_the_generator():
    engine = scripted("***.")
    decide_always(engine, "retrieve")
    answer = engine.generate("x", num_images=3)
    shown = [s.key for s in answer if isinstance(s, RetrievedImage)]
    assert sorted(shown) == list("abcde"), "3, then the other 2"
    assert kinds(answer)[-4:] == ["Decision", *["GeneratedImage"] * 3]
    assert answer[-4].reason == "index used up"


def test_candidates_are_ranked_by_retrieval_score():
    engine = scripted("a*.", index=False)
    with torch.no_grad():  # a direction for the empty state
        engine.model.adapters.retrieval.text.bias.normal_()
    images = [
        s for s in engine.generate("x", num_images=4, seed=2) if isinstance(s, GeneratedImage)
    ]
    assert len({image.seed for image in images}) == 4
    pooled = engine.vision.pooled(
        engine.vision.prepare_tensor(torch.stack([i.image for i in images]))
    )
    maps = engine.model.adapters.retrieval
    cosine = maps.embed_image(pooled) @ maps.embed_text(gill_states(engine))[0]
    torch.testing.assert_close(torch.tensor([i.score for i in images]), cosine, atol=1e-5, rtol=0)
    assert [i.score for i in images] == sorted((i.score for i in images), reverse=True)
    assert images[0].score > images[-1].score
    engine = scripted("*.", index=False)
    huge = [
        s for s in engine.generate("x", seed=2**62, num_images=2) if isinstance(s, GeneratedImage)
    ]
    assert not torch.equal(huge[0].image, huge[1].image)


def test_max_images_min_tokens_and_bias():
    engine = scripted("***.", index=False)
    assert kinds(engine.generate("x", max_images=2)).count("GeneratedImage") == 2
    assert kinds(engine.generate("x", max_images=0)).count("GeneratedImage") == 0
    engine = scripted(".", index=False)
    assert engine.generate("x") == []
    engine = scripted("..", index=False)
    assert len(engine.model.tokenize(texts(engine.generate("x", min_new_tokens=1)))[0]) == 1
    engine = scripted("*.", index=False)
    assert kinds(engine.generate("x", min_new_tokens=1, max_new_tokens=1)) == ["Text"]
    engine = scripted("abc", index=False)
    first = engine.generate(
        "x", image_bias=math.inf, max_images=1, max_new_tokens=1, temperature=0.7
    )
    assert kinds(first) == ["Decision", "GeneratedImage"]
    engine = scripted("*", index=False)
    assert "Decision" not in kinds(engine.generate("x", image_bias=-math.inf, max_new_tokens=2))


def test_decoding_goes_on_behind_the_end_of_the_text_where_that_is_asked_for():
    engine = scripted("ab.c*.d.....", index=False)
    stopped = engine.generate("x", max_new_tokens=9)
    assert kinds(stopped) == ["Text"]
    went_on = engine.generate("x", max_new_tokens=9, end_of_text="go_on")
    assert kinds(went_on) == ["Text", "Decision", "GeneratedImage", "Text"]
    whole = scripted("abc*d", index=False).generate("x", max_new_tokens=5)
    assert texts(went_on) == texts(whole)  # an end is read, counts and is not shown
    assert kinds(engine.generate("x", max_new_tokens=4, end_of_text="go_on")) == ["Text"]


# --- prompts that cannot be read


def test_long_prompts_are_refused_or_cut_from_the_left(engine):
    long = [flat_image(5), "abcdefghij" * 30, flat_image(60), "the end"]
    with pytest.raises(PromptError, match=r"prompt 1 takes 31\d positions .* has 256"):
        engine.generate_batch(["x", long], max_new_tokens=8)
    units = engine.reader.fit(engine.reader.read([long])[0], 0, 16, truncate_left=True)
    ids = [i for unit in units for i in unit.ids]
    assert len(ids) == 256 - 16
    assert ids[0] == engine.model.language.bos_id
    assert sum(unit.feature is not None for unit in units) == 1
    kept = engine.model.language.tokenizer.decode([i for i in ids[1:] if i >= 0])
    assert kept.replace(" ", "").endswith("hijtheend")
    assert engine.generate(long, max_new_tokens=8, truncate_left=True) is not None
    with pytest.raises(PromptError, match="prompt 0 takes"):
        engine.log_likelihood([["x"]], [["a" * 300]], truncate_left=True)


def test_prompts_of_nothing_are_refused(engine):
    with pytest.raises(PromptError, match="no prompt"):
        engine.generate_batch([])
    with pytest.raises(PromptError, match="prompt 0 is empty"):
        engine.generate([])
    with pytest.raises(PromptError, match="item 1 of prompt 0 is a blank text"):
        engine.generate(["a", "  "])
    with pytest.raises(PromptError, match="item 0 of prompt 0 is a int"):
        engine.generate([3])
    with pytest.raises(PromptError, match=r"shape \(3,\)"):
        engine.generate([torch.zeros(3)])
    with pytest.raises(PromptError, match="answer 0 has no token"):
        engine.log_likelihood([["x"]], [[flat_image(1)]])


def test_settings_and_lists_that_do_not_fit_are_refused(engine):
    with pytest.raises(ValueError, match="steps is 0; it must be greater than or equal to 1"):
        engine.generate("x", steps=0)
    with pytest.raises(ValueError, match="2 prompts, 1 seeds and 2 sets"):
        engine.generate_batch(["x", "y"], seeds=[1])
    with pytest.raises(ValueError, match="tempreature is no setting"):
        engine.generate("x", tempreature=1.0)


def test_parts_that_do_not_fit_are_refused(engine):
    with pytest.raises(ValueError, match="the index has vectors of width 3"):
        GillEngine(
            engine.model,
            engine.vision,
            engine.generator,
            engine.mapper,
            index=Index("a", torch.ones(1, 3)),
        )
    other = SimpleNamespace(num_targets=9, target_dim=9)
    with pytest.raises(ValueError, match=r"the mapper makes \(9, 9\)"):
        GillEngine(engine.model, engine.vision, engine.generator, other)


# --- captions, stored states


@torch.no_grad()
def test_captions_equal_a_plain_decoder(engine):
    torch.manual_seed(5)
    features = torch.randn(4, engine.vision.pooled_dim) * 3
    made = engine.caption(features, max_new_tokens=7)
    language = engine.model.language
    for caption, feature in zip(made, features, strict=True):
        x = engine.model.visual_embeddings(feature[None])[0]
        if language.prepends_bos:
            x = torch.cat([x, language.embedding.weight[language.bos_id][None]])
        ids = []
        for _ in range(7):
            last = language.hidden(x[None], torch.ones(1, len(x)).long())[0][0, -1]
            token = int(language.logits(last).argmax())
            if token == language.eos_id:
                break
            ids.append(token)
            x = torch.cat([x, language.embedding.weight[token][None]])
        assert caption == language.tokenizer.decode(ids).strip()
    assert len(set(made)) > 1


@torch.no_grad()
def test_stored_states_need_no_language_model(engine):
    stored = engine.for_states()
    states = engine.img_states(PROMPTS)
    assert torch.equal(stored.decide(states), engine.decide(states))
    assert stored.retrieve(states, 2) == engine.retrieve(states, 2)
    assert torch.equal(stored.conditioning(states), engine.conditioning(states))
    with pytest.raises(ValueError, match="no language model; load one to read prompts"):
        stored.generate("x")


@torch.no_grad()
def test_conditioning_and_samples_equal_plain_ones(engine):
    states, generator = engine.img_states(PROMPTS), engine.generator
    conditioning = engine.conditioning(states)
    plain = engine.mapper.transform(states + engine.model.adapters.img_tokens.weight)
    torch.testing.assert_close(conditioning, plain, atol=1e-6, rtol=1e-6)
    images = engine.sample(conditioning, [3, 4, 5, 6])
    torch.testing.assert_close(
        images, generator.generate(plain, [3, 4, 5, 6], 2.0, 2), atol=1e-4, rtol=1e-4
    )
    other = engine.sample(conditioning, [3, 4, 5, 6], guidance_scale=1.0)
    assert not torch.allclose(images, other, atol=1e-3)
    size = MapperSize(kind="linear", hidden_dim=4)
    mapper = new_mapper(engine.model.language.dim, R, generator.num_tokens, generator.dim, size)
    baseline = engine.conditioning(states, mapper.eval())
    assert baseline.shape == conditioning.shape
    assert not torch.allclose(baseline, conditioning, atol=1e-3)


@torch.no_grad()
def test_the_scorers_features_are_those_of_its_own_forward_pass(engine):
    torch.manual_seed(0)
    tensors = torch.rand(5, 3, 16, 16)
    images = [flat_image(shade) for shade in (0, 90, 250)]
    for given, pixels in (
        (tensors, engine.vision.prepare_tensor(tensors)),
        (images, engine.vision.prepare(images)),
    ):
        found = engine.encode_images(given, batch_size=2)
        whole = engine.vision.model.encode_image(pixels, normalize=True)
        torch.testing.assert_close(found.vectors, whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            engine.vision.project(found.pooled), found.vectors, atol=1e-5, rtol=1e-5
        )
