"""The token layouts, on a pair made by hand."""

import pytest
import torch

from gill.packing import PAD, VISUAL, caption_layout, img_layout

BOS, EOS = 1, 2
FIRST, SECOND = [BOS, 10, 11, 12], [BOS, 20]
V = 50  # [IMG0] is 50, [IMG1] is 51


def test_captions_apart():
    layout = caption_layout([FIRST, SECOND], 2, EOS, BOS, packed=False)
    assert layout.ids.tolist() == [
        [VISUAL, VISUAL, BOS, 10, 11, 12, EOS],
        [VISUAL, VISUAL, BOS, 20, EOS, PAD, PAD],
    ]
    assert layout.mask.tolist() == [[1] * 7, [1, 1, 1, 1, 1, 0, 0]]
    assert layout.visual_at.tolist() == [0, 1, 7, 8]
    # The label of a position is the token after it; the BOS is given and never predicted.
    assert layout.label_at.tolist() == [2, 3, 4, 5, 9, 10]
    assert layout.labels.tolist() == [10, 11, 12, EOS, 20, EOS]


def test_captions_packed_second_loses_bos():
    layout = caption_layout([FIRST, SECOND], 2, EOS, BOS, packed=True)
    assert layout.ids.tolist() == [[VISUAL, VISUAL, BOS, 10, 11, 12, EOS, VISUAL, VISUAL, 20, EOS]]
    assert layout.visual_at.tolist() == [0, 1, 7, 8]
    # 20 is now predicted from the second image's last visual token.
    assert layout.label_at.tolist() == [2, 3, 4, 5, 8, 9]
    assert layout.labels.tolist() == [10, 11, 12, EOS, 20, EOS]


def test_labels_follow_their_positions():
    for packed in (False, True):
        layout = caption_layout([FIRST, SECOND, [BOS, 30]], 3, EOS, BOS, packed)
        after = layout.ids.flatten()[layout.label_at + 1]
        assert torch.equal(after, layout.labels)


def test_img_tokens_apart():
    layout = img_layout([FIRST, SECOND], 2, V, BOS, packed=False)
    assert layout.prefix.tolist() == [[BOS, 10, 11, 12], [PAD, PAD, BOS, 20]]
    assert layout.prefix_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert layout.ids.tolist() == [[50, 51], [50, 51]]
    assert layout.state_at.tolist() == [[0, 1], [2, 3]]
    # [IMG0] is predicted from the last caption token, in rows of 4 + 2 positions.
    assert layout.before_at.tolist() == [3, 9]


def test_img_tokens_packed():
    layout = img_layout([FIRST, SECOND], 2, V, BOS, packed=True)
    assert layout.prefix.tolist() == [[BOS, 10, 11, 12]]
    assert layout.ids.tolist() == [[50, 51, 20, 50, 51]]
    assert layout.state_at.tolist() == [[0, 1], [3, 4]]
    assert layout.before_at.tolist() == [3, 4 + 2]


def test_odd_batch_leaves_the_last_alone():
    layout = img_layout([FIRST, SECOND, FIRST], 2, V, BOS, packed=True)
    assert layout.ids.tolist() == [[50, 51, 20, 50, 51], [50, 51, PAD, PAD, PAD]]
    assert layout.mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    assert layout.state_at.tolist() == [[0, 1], [3, 4], [5, 6]]


def test_model_without_bos_keeps_equal_tokens():
    layout = caption_layout([[5, 6], [5, 7]], 1, EOS, None, packed=True)
    assert layout.ids.tolist() == [[VISUAL, 5, 6, EOS, VISUAL, 5, 7, EOS]]
    assert layout.labels.tolist() == [5, 6, EOS, 5, 7, EOS]


def test_empty_caption_is_refused_by_number():
    with pytest.raises(ValueError, match="caption 1 "):
        img_layout([FIRST, []], 2, V, BOS, packed=False)
