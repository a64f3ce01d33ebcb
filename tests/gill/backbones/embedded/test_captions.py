"""States of captions, and the order in which a training uses them."""

from collections import Counter

import pytest
import torch

from gill.backbones.embedded.captions import CaptionStates, ChunkOrder, caption_states
from gill.backbones.embedded.text_encoder import SceneTextEncoder, TextLayers, TextShape
from gill.backbones.testing import micro_models


def test_rows_of_states_are_cut_to_the_longest():
    states = CaptionStates(torch.randn(3, 6, 2), torch.tensor([[1, 1, 0, 0, 0, 0]] * 2 + [[1] * 6]))
    assert states.rows(torch.tensor([0, 1])).states.shape == (2, 2, 2)
    assert states.rows(torch.tensor([0, 2])).mask.shape == (2, 6)


def test_each_chunk_is_used_so_many_times_and_whole():
    order = ChunkOrder(chunk=12, batch=4, passes=3)
    seen = Counter()
    for step in range(18):
        chunk, rows = order.rows(step)
        seen.update((chunk, int(r)) for r in rows)
    assert set(seen.values()) == {3}
    assert {c for c, _ in seen} == {0, 1}
    assert [int(r) for s in range(3) for r in order.rows(s)[1]] != list(range(12))


@pytest.fixture(scope="module")
def encoder():
    """A micro BERT under text layers that read six tokens."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    words = micro_models.tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    frozen = BertModel(
        BertConfig(vocab_size=len(words), intermediate_size=16, **sizes), add_pooling_layer=False
    )
    shape = TextShape(states=16, tokens=6, queries=3, width=16, depth=1, heads=2, hidden=16)
    return SceneTextEncoder(frozen.eval(), TextLayers(shape)).eval(), words


def test_states_come_in_the_order_of_the_captions_and_long_ones_are_cut(encoder):
    model, words = encoder
    captions = ["abcdefghij", "a", "bcd", ""]
    found = caption_states(model, words, captions, batch_size=3)
    assert found.mask.sum(1).tolist() == [6, 2, 4, 1]  # BOS counts
    for row, caption in enumerate(captions):
        ids = torch.tensor([words(caption)["input_ids"][:6]])
        with torch.autocast("cpu", torch.bfloat16):
            alone = model.states(ids, torch.ones_like(ids))[0]
        torch.testing.assert_close(
            found.states[row, : ids.shape[1]].float(), alone.float(), atol=0.05, rtol=0.05
        )


def test_the_text_encoder_reads_so_many_tokens_and_needs_no_mask(encoder):
    model, words = encoder
    ids = torch.tensor([words("abcdefghij")["input_ids"]])
    rows = model(ids)[0]
    assert rows.shape == (1, 3, 16)
    assert torch.equal(rows, model(ids[:, :6], torch.ones(1, 6, dtype=torch.long))[0])
    assert not torch.allclose(rows, model(ids[:, :5])[0], atol=1e-3)
