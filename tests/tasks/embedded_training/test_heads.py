"""The step ``heads``: captions of scenes, and what trained heads are worth."""

import pytest
import torch

from data.scenes.contrasts import FACTORS
from data.scenes.grammar import World
from gill.backbones.embedded.heads import ProjectionHeads
from tasks.embedded_training.heads import Features, measured, short_captions

SCENES = [World(40).scene("train", i) for i in range(60)]


def test_captions_are_phrases_and_sentences_and_reproducible():
    said = short_captions(SCENES, 0)
    assert said == short_captions(SCENES, 0)
    assert said != short_captions(SCENES, 1)
    assert said[:10] == short_captions(SCENES[:10], 0)  # of the place alone
    assert len({text.endswith(".") for text in said}) == 2 or len(set(map(len, said))) > 20


def features(image, own, their):
    rows = torch.arange(len(image))
    both = Features({"pooled": image}, own)
    return {"tested": both, "drawings_tested": both} | dict.fromkeys(FACTORS, (rows, own, their))


@pytest.fixture
def heads():
    """Heads that change nothing."""
    made = ProjectionHeads(3, 3, 3)
    for layer in (made.image, made.text):
        torch.nn.init.eye_(layer.weight)
    return made


def test_choices_and_recall_by_hand(heads):
    image = torch.eye(3)
    their = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    found = measured(heads, features(image, torch.eye(3), their), "pooled", 3)
    assert found["scenes t2i_r1"] == 1.0
    assert {found[f"choice {factor}"] for factor in FACTORS} == {0.6667}  # the third is the same
    swapped = measured(heads, features(image, their, torch.eye(3)), "pooled", 3)
    assert {swapped[f"choice {factor}"] for factor in FACTORS} == {0.0}


def test_only_so_many_columns_of_the_text_are_read(heads):
    """Beyond them stand the rows of the generator's text encoder."""
    text = torch.cat([torch.eye(3), torch.full((3, 4), 9.0)], dim=1)
    found = measured(heads, features(torch.eye(3), text, -text), "pooled", 3)
    assert found["scenes t2i_r1"] == found["choice object"] == 1.0
