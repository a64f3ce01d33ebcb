"""A sheet of prompts and their two images; the chosen one is marked."""

import io

import numpy as np
from PIL import Image

from tasks.evaluation.contact_sheet import SHOWN, cards, contact_sheet


def plain(colour):
    return Image.new("RGB", (8, 8), colour)


def test_cards_say_what_is_chosen_and_stop_at_the_last_image():
    images = [plain("red")] * 20
    chances = [[0.2, 0.8], [0.9, 0.1], *[[0.5, 0.5]] * 18]
    made = cards([f"prompt {i}" for i in range(20)], images, images, chances)
    assert len(made) == SHOWN
    assert [(c.choice, c.probability) for c in made[:3]] == [
        ("retrieved", 0.8), ("generated", 0.9), ("generated", 0.5)]  # fmt: skip
    assert len(cards(["a", "b"], images[:1], images[:1], chances)) == 1


def test_the_sheet_shows_both_images_and_frames_the_chosen_one():
    made = cards(["a cat for $5 and a very long story " * 8], [plain("red")], [plain("blue")],
                 [[0.1, 0.9]])  # fmt: skip
    figure = contact_sheet(made)
    generated, retrieved = figure.axes
    assert retrieved.get_xlabel() == "retrieved (0.90)"
    assert generated.get_xlabel() == "generated"
    assert generated.spines["top"].get_linewidth() < retrieved.spines["top"].get_linewidth()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=50)
    pixels = np.asarray(Image.open(out).convert("RGB")).reshape(-1, 3)
    for colour in ([255, 0, 0], [0, 0, 255]):
        assert (pixels == colour).all(1).sum() > 500
    assert figure.subfigs[0].get_suptitle().count("\n") == 2
