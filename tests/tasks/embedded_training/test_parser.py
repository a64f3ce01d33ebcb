"""The step ``parser``: truth and captions of scenes, and the rows that the layers make of them."""

import pytest
import torch

from data.scenes.captions import describe
from data.scenes.grammar import World
from data.scenes.randomness import Draws
from data.scenes.truth import UNSAID, columns, columns_of_text
from gill.backbones.embedded.generator import new_text_encoder
from gill.backbones.embedded.text_encoder import TextShape
from tasks.embedded_training.parser import (
    COLUMN_NAMES,
    captions_of,
    encode_rows,
    new_codes,
    parser_accuracy,
    truth_of,
    truth_of_captions,
)

WORLD = World(120)


@pytest.fixture(scope="module")
def read():
    """The real frozen encoder under small untrained layers, and its tokenizer."""
    torch.manual_seed(0)
    encoder, tokenizer = new_text_encoder(TextShape(depth=1, heads=2, hidden=16))
    return encoder.eval(), tokenizer


def test_truth_is_that_of_the_scenes_with_the_turn_of_their_number():
    found = truth_of(WORLD, "test", 30, 4)
    assert found.tolist() == [columns(WORLD.scene("test", i), turn=i) for i in range(30, 34)]
    assert found.shape[1] == len(COLUMN_NAMES) == 11


def test_captions_are_of_the_same_scenes_and_may_be_of_one_length():
    assert captions_of(WORLD, "test", 5, 3) == captions_of(WORLD, "test", 0, 8)[5:]
    assert captions_of(WORLD, "test", 5, 3) != captions_of(WORLD, "test", 5, 3, variant=1)
    long = captions_of(WORLD, "test", 0, 20, length="long")
    short = captions_of(WORLD, "test", 0, 20, length="phrase")
    assert sum(map(len, long)) > 1.5 * sum(map(len, short))


def test_what_the_encoder_does_not_read_is_not_true_of_a_caption(read):
    _, tokenizer = read
    scene = WORLD.scene("test", 0)
    said = describe(scene, "phrase", Draws(0)).lower()
    far = " ".join(["indeed"] * 60)
    found = truth_of_captions(WORLD, "test", 0, [said, f"{far} {said}"], tokenizer)
    assert found[0].tolist() == columns_of_text(scene, said)
    # The second caption is of the next scene and is cut before it names anything.
    assert found[1].tolist()[:9] == [UNSAID] * 9


def test_an_empty_caption_says_nothing_at_all(read):
    """From it guidance steers away: an error here would teach a wrong direction."""
    found = truth_of_captions(WORLD, "test", 0, ["", "a cat"], read[1])
    assert found[0].tolist() == [UNSAID] * 11
    assert torch.equal(new_codes()(found[:1])[0], new_codes().empty())


def test_rows_do_not_depend_on_the_captions_beside(read):
    encoder, tokenizer = read
    captions = ["a cat on a beach", "x", "three owls left of two buses at night in the rain"]
    together = encode_rows(encoder, tokenizer, captions)
    assert together.dtype == torch.float32
    for row, caption in zip(together, captions, strict=True):
        alone = encode_rows(encoder, tokenizer, [caption])[0]
        torch.testing.assert_close(row, alone, atol=0.05, rtol=0.05)


def test_accuracy_is_reported_for_each_column_and_is_low_untrained(read):
    found = parser_accuracy(*read, count=16)
    assert set(found) == {*COLUMN_NAMES, "distance"}
    assert found["object_1"] < 0.5
    assert found["distance"] > 0.5
