"""How prompts become sequences: units, the place of BOS, cutting, and input embeddings."""

import pytest
import torch
from PIL import Image

from gill.backbones.testing import micro_models
from gill.inference.prompts import ImgTokens, PromptError, PromptReader, items_of
from gill.model import Adapters, GillModel
from gill.packing import PAD, VISUAL, prompt_layout
from gill.specs import AdapterSpec

R, K, WIDTH = 3, 2, 6


@pytest.fixture(scope="module")
def reader():
    """A reader of features, without a vision encoder."""
    language = micro_models.language_model()
    torch.manual_seed(0)
    spec = AdapterSpec(
        num_img_tokens=R,
        num_visual_tokens=K,
        retrieval_dim=4,
        vision_dim=WIDTH,
        llm_dim=language.dim,
    )
    return PromptReader(GillModel(language, Adapters(spec, language)))


def ids(reader, text):
    return list(reader.model.language.tokenizer(text, add_special_tokens=False)["input_ids"])


def fitted(reader, *items, room=0, **options):
    return [i for unit in reader.fit(reader.read([items])[0], 0, room, False, **options)
            for i in unit.ids]  # fmt: skip


def test_text_is_a_unit_for_each_token_and_an_image_is_one(reader):
    units = reader.read([["ab", torch.ones(WIDTH), ImgTokens()]])[0]
    first = reader.model.adapters.img_tokens.first_id
    assert [unit.ids for unit in units] == [
        *[[i] for i in ids(reader, "ab")], [VISUAL] * K, [first, first + 1, first + 2],
    ]  # fmt: skip
    assert [unit.feature is not None for unit in units] == [False, False, True, False]


def test_bos_stands_before_the_first_text_or_last(reader):
    bos, image = reader.model.language.bos_id, torch.ones(WIDTH)
    assert fitted(reader, "a") == [bos, *ids(reader, "a")]
    assert fitted(reader, image, "a") == [VISUAL, VISUAL, bos, *ids(reader, "a")]
    assert fitted(reader, "a", image) == [bos, *ids(reader, "a"), VISUAL, VISUAL]
    assert fitted(reader, image) == [VISUAL, VISUAL, bos]


def test_room_is_kept_to_the_last_position(reader):
    most = reader.model.language.max_positions
    text = "a" * (most - 1 - 4)
    assert len(fitted(reader, text, room=4)) == most - 4
    with pytest.raises(PromptError, match=rf"takes {most - 4} positions and its answer 5 more"):
        fitted(reader, text, room=5)


def test_cutting_drops_whole_units_from_the_left(reader):
    most = reader.model.language.max_positions
    units = reader.read([[torch.ones(WIDTH), "a" * (most - 2)]])[0]
    kept = reader.fit(units, 0, 0, truncate_left=True)
    # One position too many, and an image takes two: BOS and the text are left.
    assert [unit.feature for unit in kept if unit.feature is not None] == []
    assert sum(len(unit.ids) for unit in kept) == most - 1
    with pytest.raises(PromptError, match="prompt 0 takes"):
        reader.fit(units, 0, 0, truncate_left=True, keep=len(units))


def test_embeddings_stand_at_their_places(reader):
    model, feature = reader.model, torch.randn(WIDTH)
    rows = [reader.fit(r, 0, 0, False) for r in reader.read([["a", feature], "abcd"])]
    embeddings, mask = reader.embed(rows)
    assert mask.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    weight = model.language.embedding.weight
    torch.testing.assert_close(embeddings[0, 1], weight[model.language.bos_id])
    torch.testing.assert_close(embeddings[0, 2], weight[ids(reader, "a")[0]])
    visual = model.adapters.captioning.linear(feature).view(K, -1)
    torch.testing.assert_close(embeddings[0, 3:], visual)
    layout = prompt_layout([[i for unit in row for i in unit.ids] for row in rows])
    assert layout.ids[0, 0] == PAD


def test_items_that_cannot_be_read_say_where(reader):
    with pytest.raises(PromptError, match="item 1 of prompt 1 is a blank text; leave it out"):
        reader.read(["a", ["b", " "]])
    with pytest.raises(
        PromptError, match=rf"a tensor of shape \(2,\); a vision feature has \({WIDTH},\)"
    ):
        reader.read([torch.zeros(2)])
    with pytest.raises(PromptError, match="no vision encoder to read images; give their features"):
        reader.read([Image.new("RGB", (4, 4))])
    with pytest.raises(PromptError, match="prompt 7 is empty"):
        reader.fit([], 7, 0, False)


def test_an_item_alone_stands_for_itself():
    assert items_of("a") == ["a"]
    assert items_of(ImgTokens()) == [ImgTokens()]
    assert items_of(("a", "b")) == ["a", "b"]
