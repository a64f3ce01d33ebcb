"""Micro models of every family that is tried: works, with all fast passes right, or refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gill.backbones.language import LanguageModel, UnsuitableModelError
from gill.backbones.language_checks import Abilities
from gill.backbones.testing import micro_models
from gill.backbones.testing.families import LANGUAGE, WINDOW
from gill.backbones.testing.micro_generators import PIPELINES, REFUSED
from gill.batches import AdapterBatch
from gill.inference.decoding import decode
from gill.inference.settings import DecodingSettings
from gill.losses import LossWeights
from gill.model import Adapters, GillModel
from gill.packing import prompt_layout
from gill.specs import AdapterSpec

R = 3
WORKING = [name for name, family in LANGUAGE.items() if family.outcome == "works"]
PROMPTS = ["a", "an old red truck", "flag of", "clip art"]


@pytest.fixture(scope="module", params=WORKING)
def model(request):
    language = LanguageModel(
        LANGUAGE[request.param].build(), micro_models.tokenizer(), request.param
    )
    torch.manual_seed(2)
    spec = AdapterSpec(
        num_img_tokens=R, num_visual_tokens=2, retrieval_dim=8, vision_dim=6, llm_dim=language.dim
    )
    return GillModel(language, Adapters(spec, language), max_caption_tokens=40)


def test_a_batch_decodes_as_each_of_its_rows_alone(model):
    rows = model.language.tokenize(PROMPTS, 40)
    assert max(map(len, rows)) > 2 * WINDOW
    nothing = torch.empty(0)
    states = torch.randn(64, model.language.dim)
    spread = float(model.language.logits(states).std())  # of logits, which differs by family
    settings = DecodingSettings(max_new_tokens=8, temperature=spread, image_bias=3 * spread)

    def answers(rows, seeds):
        layout = prompt_layout(rows)
        embeddings = model.embed(layout.ids, nothing, nothing)
        return decode(model, embeddings, layout.mask, settings, seeds)

    seeds = range(len(rows))
    together = answers(rows, seeds)
    places = set()
    for row, seed, found in zip(rows, seeds, together, strict=True):
        [alone] = answers([row], [seed])
        assert found.tokens == alone.tokens
        for mine, other in zip(found.states, alone.states, strict=True):
            assert mine.shape == (R, model.language.dim)
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)
        places.add(tuple(i for i, t in enumerate(found.tokens) if t == model.language.vocab_size))
    assert len(places) > 2, "no gap could arise: the rows show their images at the same steps"


@pytest.mark.parametrize("packed", [False, True])
def test_losses_and_gradients_equal_those_of_one_plain_pass(model, packed, monkeypatch):
    batch = AdapterBatch(model.tokenize(PROMPTS), torch.randn(len(PROMPTS), 6))
    trained = [model.adapters.img_tokens.weight, model.adapters.captioning.linear.weight]

    def results():
        losses = model.losses(batch, LossWeights(), float(packed))
        return list(losses.values()), torch.autograd.grad(losses["loss"], trained)

    fast, gradients = results()
    monkeypatch.setattr(model.language, "abilities", Abilities(False, False, False))
    plain, expected = results()  # one pass without a cache, padding on the right
    torch.testing.assert_close(fast, plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=2e-3)
    assert all(float(g.abs().max()) > 1e-3 for g in expected)


@pytest.mark.parametrize("name", sorted(set(LANGUAGE) - set(WORKING)))
def test_a_family_is_refused_by_name(name):
    family = LANGUAGE[name]
    with pytest.raises(UnsuitableModelError, match=rf"my-{name} \({family.model}.*{family.why}"):
        LanguageModel(family.build(), micro_models.tokenizer(), f"my-{name}")


def test_logits_that_are_changed_in_an_unknown_way_are_refused():
    model = LANGUAGE["llama"].build()
    model.register_forward_hook(lambda *args: args[2].__class__(logits=args[2].logits * 2))
    with pytest.raises(UnsuitableModelError, match=r"odd .* between the hidden states"):
        LanguageModel(model, micro_models.tokenizer(), "odd")


class _ReadsPadding(nn.Module):
    """A layer with a running mean over the row, padding and all, which no cache holds."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states, **named):
        count = torch.arange(1, hidden_states.shape[1] + 1)[None, :, None]
        return self.inner(hidden_states + hidden_states.cumsum(1) / count, **named)


def test_a_model_whose_cache_does_not_hold_its_state_is_refused():
    model = LANGUAGE["llama"].build()
    model.model.layers[1].mlp.forward = _ReadsPadding(model.model.layers[1].mlp.forward).forward
    with pytest.raises(UnsuitableModelError, match=r"odd .* after its key-value cache"):
        LanguageModel(model, micro_models.tokenizer(), "odd")


def test_the_table_in_the_docs_has_every_family():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "families.md").read_text()
    for family in LANGUAGE.values():
        outcome = "works" if family.outcome == "works" else "refused by name"
        assert f"| language model | {family.title} | {outcome} |" in page, (
            "write it again: python -m benchmarks.families --write"
        )
    for title, _ in (*PIPELINES.values(), *REFUSED.values()):
        assert f"| image generator | {title} |" in page
