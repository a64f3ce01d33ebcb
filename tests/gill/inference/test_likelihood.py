"""Log-likelihood of answers against a plain pass and by hand."""

import pytest
import torch
from language_families import FAMILIES
from micro_engine import K, R, build, flat_image, plain_embeddings
from PIL import Image

from gill.backbones.testing import micro_models
from gill.inference import likelihood
from gill.inference.prompts import ImgTokens, PromptError


@pytest.fixture(params=["opt", "llama"])
def engine(request):
    return build(
        micro_models.language_model()
        if request.param == "opt"
        else micro_models.llama_model(tied=False)
    )


@torch.no_grad()
def test_likelihoods_equal_a_plain_pass(engine):
    language, img = engine.model.language, engine.model.adapters.img_tokens
    prompts = [["a cat"], [flat_image(30), "who?"], ["x"]]
    answers = [["yes"], ["a dog", ImgTokens(), " no"], [flat_image(9), "b"]]
    found = engine.log_likelihood(prompts, answers)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        x = plain_embeddings(engine, [*prompt, *answer])
        hidden = language.hidden(x[None], torch.ones(1, len(x)).long())[0][0]
        scores = torch.cat([language.logits(hidden), img.logits(hidden)], -1).log_softmax(-1)
        at, total, count = len(plain_embeddings(engine, prompt)), 0.0, 0
        for item in answer:
            if isinstance(item, Image.Image):
                at += K
            elif isinstance(item, ImgTokens):
                total, count, at = total + scores[at - 1, language.vocab_size], count + 1, at + R
            else:
                for token in language.tokenizer(item, add_special_tokens=False)["input_ids"]:
                    total, count, at = total + scores[at - 1, token], count + 1, at + 1
        assert float(found.total[row]) == pytest.approx(float(total), abs=1e-4)
        assert int(found.tokens[row]) == count
    torch.testing.assert_close(found.mean, found.total / found.tokens)


@torch.no_grad()
def test_the_first_token_counts_where_there_is_something_before_it():
    """BOS stands before an answer without a prompt; without BOS nothing predicts its first."""
    for language, wanted in ((FAMILIES["opt"](), 3), (FAMILIES["gpt-neox"](), 2)):
        engine = build(language, index=False)
        found = engine.log_likelihood([[]], [["abc"]])
        assert int(found.tokens[0]) == wanted


@torch.no_grad()
def test_a_sequence_of_tokens_is_the_product_of_its_steps(engine):
    """p(ab | x) = p(a | x) p(b | xa): the chain rule, in one pass or in two."""
    together = engine.log_likelihood([["x"]], [["ab"]]).total
    first = engine.log_likelihood([["x"]], [["a"]]).total
    second = engine.log_likelihood([["xa"]], [["b"]]).total
    torch.testing.assert_close(together, first + second, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_the_batch_and_the_chunk_do_not_matter(engine, monkeypatch):
    prompts, answers = [["a cat"], ["x"], [flat_image(30)]], [["yes"], ["a longer one"], ["no"]]
    together = engine.log_likelihood(prompts, answers)
    monkeypatch.setattr(likelihood, "_CHUNK", 3)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = engine.log_likelihood([prompt], [answer])
        torch.testing.assert_close(alone.total[0], together.total[row], atol=1e-4, rtol=1e-5)
        assert alone.tokens[0] == together.tokens[row]


@torch.no_grad()
def test_cutting_takes_from_the_prompt_and_never_from_the_answer(engine):
    most = engine.model.language.max_positions
    answer = "yes"
    long = "ab" * most
    with pytest.raises(PromptError, match="prompt 0 takes"):
        engine.log_likelihood([[long]], [[answer]])
    cut = engine.log_likelihood([[long]], [[answer]], truncate_left=True)
    kept = long[-(most - 1 - len(answer)) :]
    torch.testing.assert_close(
        cut.total, engine.log_likelihood([[kept]], [[answer]]).total, atol=1e-4, rtol=1e-5
    )
    with pytest.raises(PromptError, match="prompt 0 takes"):
        engine.log_likelihood([["x"]], [[long]], truncate_left=True)


def test_an_answer_of_images_alone_has_nothing_to_score(engine):
    with pytest.raises(PromptError, match="answer 1 has no token to score"):
        engine.log_likelihood([["x"], ["x"]], [["a"], [flat_image(1)]])
