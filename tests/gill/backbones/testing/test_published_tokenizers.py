"""Tokenizers of stand-ins: CLIP's own ids, OPT's layout."""

import pytest
from open_clip.tokenizer import SimpleTokenizer

from gill.backbones.testing.published_tokenizers import clip_tokenizer, opt_tokenizer

TEXTS = ["a photo of a cat in the snow", "Two dogs' red ball, 3 of them!"]


def test_clips_ids_are_open_clips():
    words, shipped = clip_tokenizer(), SimpleTokenizer()
    assert len(words) == 49_408
    for text, ids in zip(TEXTS, shipped(TEXTS).tolist(), strict=True):
        own = words(text)["input_ids"]
        assert own == ids[: len(own)]
    assert words(TEXTS, padding="max_length")["input_ids"][0][-1] == words.eos_token_id


@pytest.fixture(scope="module")
def opt():
    return opt_tokenizer()


def test_opts_layout(opt):
    assert len(opt) == 50_265
    specials = [opt.convert_tokens_to_ids(t) for t in ("<s>", "<pad>", "</s>", "<unk>")]
    assert specials == [0, 1, 2, 3]
    assert (opt.bos_token_id, opt.eos_token_id, opt.pad_token_id) == (2, 2, 1)


def test_a_text_begins_with_end_of_text_takes_a_token_a_word_and_comes_back(opt):
    ids = opt(TEXTS[0])["input_ids"]
    assert ids[0] == 2
    assert len(ids) <= 1 + len(TEXTS[0].split()) + 1
    for text in TEXTS:
        assert opt.decode(opt(text)["input_ids"], skip_special_tokens=True) == text
