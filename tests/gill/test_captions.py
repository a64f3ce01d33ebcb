"""Captions out of the ordinary are counted by their reason."""

import pytest

from gill.backbones.testing import micro_models
from gill.captions import caption_oddities


@pytest.mark.parametrize(
    ("caption", "reasons"),
    [
        ("a cat", set()),
        (" ", {"empty"}),
        ("see [IMG0] and [IMG]", {"naming_img", "unknown_tokens"}),  # its alphabet has no brackets
        ("[image]", {"unknown_tokens"}),
        ("a very long caption", {"cut"}),
        ("Ёж", {"other_scripts", "unknown_tokens"}),
        ("café", {"unknown_tokens"}),  # Latin, and not in the alphabet of the tiny tokenizer
    ],
)
def test_reasons_by_caption(caption, reasons):
    longest = len("see [IMG0] and [IMG]") + 1 if "IMG" in caption else 10
    found = caption_oddities(micro_models.language_model(), [caption], longest)
    assert {name for name, count in found.items() if count} == reasons


def test_every_reason_is_reported_and_captions_add_up():
    found = caption_oddities(micro_models.language_model(), ["a", "", "", "[IMG3]"], 10)
    assert found == {
        "cut": 0, "empty": 2, "naming_img": 1, "other_scripts": 0, "unknown_tokens": 1,
    }  # fmt: skip
